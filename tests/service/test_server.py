"""The server's life in a real process: start, health, logs, metrics, drain, and what stops a start."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest
from fovea.v1 import classification_pb2, classification_pb2_grpc, image_pb2, models_pb2, models_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.config import Config
from service.health import LIVENESS, READY, model_service
from service.server import Server
from tests.packages import SIZE, write_colors, write_slow
from tests.servers import ServerProcess

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_colors(tmp_path / "models")
    return tmp_path / "models"


def channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address)


def health(open_channel: grpc.Channel, service: str) -> int:
    reply = health_pb2_grpc.HealthStub(open_channel).Check(
        health_pb2.HealthCheckRequest(service=service), timeout=10
    )
    return int(reply.status)


def request_id(call: Any) -> str:
    return str(dict(call.trailing_metadata())["x-request-id"])


def gray(images: int = 1) -> classification_pb2.ClassifyRequest:
    raw = image_pb2.RawImage(data=bytes([90]) * (SIZE * SIZE * 3), height=SIZE, width=SIZE)
    return classification_pb2.ClassifyRequest(images=[image_pb2.Image(raw=raw)] * images)


def start_and_fail(*options: str, environment: dict[str, str] | None = None) -> str:
    """Run `fovea serve` with something wrong; returns its last words."""
    result = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--port", "0", "--metrics-port", "0", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | (environment or {}),
        check=False,
    )
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    return result.stderr


def test_it_is_alive_at_once_and_ready_when_warm(tmp_path: Path) -> None:
    write_slow(tmp_path / "models")
    server = ServerProcess(tmp_path / "models", tmp_path / "index")
    try:
        address = server.wait_for("listening")["address"]
        with channel(address) as open_channel:
            assert health(open_channel, LIVENESS) == SERVING
            assert health(open_channel, READY) == NOT_SERVING
            assert health(open_channel, model_service("slow")) == NOT_SERVING
            with pytest.raises(grpc.RpcError) as caught:
                classification_pb2_grpc.ClassificationServiceStub(open_channel).Classify(gray(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "'slow' is loading" in (caught.value.details() or "")
            server.wait_for("ready")
            assert [health(open_channel, name) for name in (READY, LIVENESS, model_service("slow"))] == [
                SERVING
            ] * 3
    finally:
        server.kill()


def test_it_stops_while_it_loads(tmp_path: Path) -> None:
    write_slow(tmp_path / "models", products=200)  # its warm-up takes far longer than the signal
    server = ServerProcess(tmp_path / "models", tmp_path / "index")
    try:
        server.wait_for("listening")
        time.sleep(0.5)  # by then its thread is at it
        assert server.stop() == 0
        events = [line["event"] for line in server.logs]
        assert events == ["thread_budget", "listening", "stopping", "draining", "stopped"]
        assert server.logs[-1]["threads_ended"] is False  # the one that loads can't be stopped
    finally:
        server.kill()


def test_sigterm_says_not_serving_first_and_finishes_what_is_under_way(tmp_path: Path) -> None:
    write_slow(tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", "--lame-duck-s", "5") as server,
        channel(server.address) as open_channel,
    ):
        stub = classification_pb2_grpc.ClassificationServiceStub(open_channel)
        watches = [
            health_pb2_grpc.HealthStub(open_channel).Watch(health_pb2.HealthCheckRequest(service=READY))
            for _ in range(3)
        ]
        assert [next(watch).status for watch in watches] == [SERVING] * 3
        watches.pop().cancel()  # one watcher who leaves must not take the others' news along
        calls = [stub.Classify.future(gray(), timeout=60) for _ in range(12)]
        server.process.send_signal(signal.SIGTERM)
        assert [next(watch).status for watch in watches] == [NOT_SERVING] * 2
        assert health(open_channel, LIVENESS) == SERVING
        assert health(open_channel, model_service("slow")) == NOT_SERVING
        late = stub.Classify.future(gray(), timeout=60)  # in the lame-duck time calls are still taken
        for call in [*calls, late]:
            assert call.result().results[0].classification.classes
        # The watches are still open here, and don't hold the server up until its drain's timeout.
        assert [list(watch) for watch in watches] == [[], []]
        assert server.wait() == 0
    events = [line["event"] for line in server.logs]
    assert events == [
        "thread_budget", "listening", "model_loaded", "ready", "stopping", "draining", "stopped",
    ]  # fmt: skip
    assert server.logs[-1]["drain_s"] < server.logs[-2]["timeout_s"]
    assert server.logs[-1]["threads_ended"] is True


def test_ctrl_c_skips_the_lame_duck(repository: Path, tmp_path: Path) -> None:
    with ServerProcess(repository, tmp_path / "index", "--lame-duck-s", "600") as server:
        assert server.stop(signal.SIGINT) == 0
    draining = next(line for line in server.logs if line["event"] == "draining")
    assert draining["lame_duck_s"] == 0


def test_nobody_is_waited_for_who_never_asked_and_its_ports_are_free_at_once(
    repository: Path, tmp_path: Path
) -> None:
    options = ["--lame-duck-s", "600"]
    for _ in range(2):
        with (
            ServerProcess(repository, tmp_path / "index", *options) as server,
            channel(server.address) as open_channel,
        ):
            assert health(open_channel, LIVENESS) == SERVING  # says nothing of where calls may go
            classification_pb2_grpc.ClassificationServiceStub(open_channel).Classify(gray(), timeout=10)
            assert server.metrics()["process_resident_memory_bytes"] > 0
            assert server.stop() == 0
        draining = next(line for line in server.logs if line["event"] == "draining")
        assert draining["lame_duck_s"] == 0
        # The same once more, on the ports that have just been left with connections open.
        port, metrics_port = (url.rpartition(":")[2] for url in (server.address, server.metrics_url))
        options += ["--port", port, "--metrics-port", metrics_port.partition("/")[0]]


def test_a_second_signal_ends_it_at_once(repository: Path, tmp_path: Path) -> None:
    with (
        ServerProcess(
            repository, tmp_path / "index", "--lame-duck-s", "600", "--drain-timeout-s", "3600"
        ) as server,
        channel(server.address) as open_channel,
    ):
        assert health(open_channel, READY) == SERVING  # who asks is waited for
        release = threading.Event()

        def endless() -> Iterator[classification_pb2.ClassifyStreamRequest]:
            yield classification_pb2.ClassifyStreamRequest(id=1, request=gray())
            release.wait(timeout=60)

        stream = classification_pb2_grpc.ClassificationServiceStub(open_channel).ClassifyStream(endless())
        assert next(stream).id == 1
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        time.sleep(1.1)  # make and timeout pass one signal on twice; only a later one is a second one
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        release.set()
        with pytest.raises(grpc.RpcError):
            next(stream)


def test_one_signal_that_comes_twice_hurries_nobody(tmp_path: Path) -> None:
    write_slow(tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as server,
        channel(server.address) as open_channel,
    ):
        stub = classification_pb2_grpc.ClassificationServiceStub(open_channel)
        calls = [stub.Classify.future(gray(), timeout=60) for _ in range(6)]
        while server.metrics()['fovea_queue_depth{model="slow"}'] == 0:
            assert not all(call.done() for call in calls)
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("stopping")
        for call in calls:
            assert call.result().results[0].classification.classes
        assert server.wait() == 0


def test_an_idle_stream_does_not_hold_up_the_drain(repository: Path, tmp_path: Path) -> None:
    release = threading.Event()

    def messages() -> Iterator[classification_pb2.ClassifyStreamRequest]:
        yield classification_pb2.ClassifyStreamRequest(id=1, request=gray())
        release.wait(timeout=60)

    with (
        ServerProcess(repository, tmp_path / "index", "--drain-timeout-s", "3600") as server,
        channel(server.address) as open_channel,
    ):
        stream = classification_pb2_grpc.ClassificationServiceStub(open_channel).ClassifyStream(messages())
        assert next(stream).response.results
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in (caught.value.details() or "")
        assert server.wait() == 0
        release.set()


async def test_a_batcher_that_dies_ends_the_server(repository: Path, tmp_path: Path) -> None:
    server = Server(Config(model_repository=repository, index_path=tmp_path / "index"))

    async def die() -> None:
        raise ZeroDivisionError("a fault of its own")

    server._batchers.append(asyncio.create_task(die()))
    with pytest.raises(ZeroDivisionError):
        await server._serve()
    server._gallery.close()


def test_it_listens_on_ipv6(repository: Path, tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    for host in ("::1", "[::1]"):
        with (
            ServerProcess(repository, tmp_path / "index", "--host", host) as server,
            channel(server.address) as open_channel,
        ):
            assert server.address.startswith("[::1]:")
            assert health(open_channel, READY) == SERVING
            assert server.metrics()["process_resident_memory_bytes"] > 0


def test_log_lines_carry_the_callers_request_id(server: ServerProcess) -> None:
    with channel(server.address) as open_channel:
        stub = classification_pb2_grpc.ClassificationServiceStub(open_channel)
        request = gray()
        request.model = "nobody"
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(request, metadata=(("x-request-id", "order-66"),), timeout=10)
        assert request_id(caught.value) == "order-66"
        _, call = stub.Classify.with_call(gray(), metadata=(("x-request-id", "no spaces!"),), timeout=10)
        assert re.fullmatch("[0-9a-f]{32}", request_id(call))
    line = server.wait_for("request_failed")
    while line["request_id"] != "order-66":
        line = server.wait_for("request_failed")
    assert line["code"] == "NOT_FOUND"
    assert "nobody" in line["error"]
    assert line["level"] == "warning"


def test_metrics_count_what_happened(server: ServerProcess) -> None:
    before = server.metrics()
    good_and_bad = gray(2)
    good_and_bad.images.add(raw=image_pb2.RawImage(data=bytes(9 * 9 * 3), height=9, width=9))
    good_and_bad.images.add(encoded=b"not an image")
    with channel(server.address) as open_channel:
        stub = classification_pb2_grpc.ClassificationServiceStub(open_channel)
        stub.Classify(good_and_bad, timeout=10)
        with pytest.raises(grpc.RpcError):
            stub.Classify(classification_pb2.ClassifyRequest(model="a label bomb"), timeout=10)
    after = server.metrics()

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    method = 'method="/fovea.v1.ClassificationService/Classify"'
    assert grown(f'fovea_requests_total{{code="OK",{method},model="colors"}}') == 1
    assert grown(f'fovea_requests_total{{code="NOT_FOUND",{method},model=""}}') == 1
    assert grown('fovea_images_total{code="OK",model="colors"}') == 3
    assert grown('fovea_images_total{code="INVALID_ARGUMENT",model="colors"}') == 1
    assert grown(f'fovea_request_duration_seconds_count{{{method},model="colors"}}') == 1
    # The other two have the model's size already.
    assert grown('fovea_decode_seconds_count{model="colors"}') == 1
    assert grown('fovea_queue_seconds_count{model="colors"}') == 3
    assert grown('fovea_batch_size_sum{model="colors"}') == 3
    assert grown('fovea_inference_seconds_count{model="colors"}') >= 1
    assert after['fovea_queue_depth{model="colors"}'] == 0
    assert after['fovea_saturation{model="colors"}'] == 0
    # One request was answered, seconds before its deadline.
    assert grown('fovea_deadline_slack_seconds_count{model="colors"}') == 1
    assert grown('fovea_deadline_slack_seconds_bucket{le="0.0",model="colors"}') == 0
    # gRPC's clients round a timeout up by as much as 1%.
    assert 5 < grown('fovea_deadline_slack_seconds_sum{model="colors"}') <= 10.2
    info = 'execution_provider="CPUExecutionProvider",model="colors",precision="fp32",version="1"'
    assert after[f"fovea_model_info{{{info}}}"] == 1
    assert after['fovea_model_load_duration_seconds{model="colors"}'] > 0
    assert after["process_resident_memory_bytes"] > 0
    assert not any("a label bomb" in name for name in after)


def test_reflection_lists_the_services(server: ServerProcess) -> None:
    with channel(server.address) as open_channel:
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = reflection_pb2_grpc.ServerReflectionStub(open_channel).ServerReflectionInfo(iter([asked]))
        names = {service.name for service in next(iter(replies)).list_services_response.service}
    assert names == {
        "fovea.v1.ClassificationService",
        "fovea.v1.EmbeddingService",
        "fovea.v1.ModelService",
        "fovea.v1.RetrievalService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_models_describe_themselves(server: ServerProcess) -> None:
    with channel(server.address) as open_channel:
        stub = models_pb2_grpc.ModelServiceStub(open_channel)
        models = stub.ListModels(models_pb2.ListModelsRequest(), timeout=10).models
        assert [(model.name, model.version, model.is_default) for model in models] == [
            ("broken", "1", False),
            ("colors", "1", True),
        ]
        model = stub.GetModel(models_pb2.GetModelRequest(), timeout=10).model
    assert model == models[1]
    assert (model.input_height, model.input_width, model.embedding_dimension) == (8, 8, 24)
    assert list(model.labels) == ["red", "green", "blue"]
    assert model.task == models_pb2.TASK_SINGLE_LABEL
    assert (model.preprocessing.resize_short_side, model.preprocessing.interpolation) == (8, "bilinear")
    assert not model.preprocessing.jpeg_scaled_decode
    assert model.execution_provider == "CPUExecutionProvider"
    assert re.fullmatch("[0-9a-f]{64}:fp32", model.fingerprint)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_stops_the_start(repository: Path, tmp_path: Path, taken_port: int) -> None:
    common = ("--model-repository", str(repository), "--index-path", str(tmp_path / "index"))
    assert f"port is {taken_port}, which can't be listened on" in start_and_fail(
        *common, "--port", str(taken_port)
    )
    words = start_and_fail(*common, "--metrics-port", str(taken_port))
    assert f"metrics_port is {taken_port}, which can't be listened on" in words
    assert "is another server there, or one that is still finishing its calls?" in words


def test_a_second_server_on_the_port_is_refused(repository: Path, tmp_path: Path) -> None:
    with ServerProcess(repository, tmp_path / "index") as first:
        port = first.address.rpartition(":")[2]
        words = start_and_fail(
            "--model-repository", str(repository), "--index-path", str(tmp_path / "other"), "--port", port
        )  # fmt: skip
        assert (
            f"port is {port}, which can't be listened on at host 127.0.0.1: Address already in use" in words
        )


def test_a_second_server_on_the_index_is_refused_with_the_owners_pid(
    repository: Path, tmp_path: Path
) -> None:
    with ServerProcess(repository, tmp_path / "index") as first:
        words = start_and_fail("--model-repository", str(repository), "--index-path", str(tmp_path / "index"))
        assert str(first.process.pid) in words
        assert str(tmp_path / "index") in words


def test_a_start_that_cannot_work_says_why(repository: Path, tmp_path: Path) -> None:
    index = ("--index-path", str(tmp_path / "index"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no model package there" in start_and_fail(*index, "--model-repository", str(empty))
    common = (*index, "--model-repository", str(repository))
    assert "expected one of those served: colors" in start_and_fail(*common, "--default-model", "colours")
    assert "the repository has colors" in start_and_fail(*common, "--model", "colours")
    assert "the versions of 'colors' are 1" in start_and_fail(*common, "--model", "colors:2")
    assert "max_batch_size is 0; expected 1 to 1024" in start_and_fail(*common, "--max-batch-size", "0")
    words = start_and_fail(*common, "--execution-provider", "cuda", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert "execution_provider is 'cuda'" in words


def test_a_package_that_was_tampered_with_is_refused(repository: Path, tmp_path: Path) -> None:
    model = repository / "colors" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    words = start_and_fail("--model-repository", str(repository), "--index-path", str(tmp_path / "index"))
    assert "the manifest says" in words
    assert "sha256" in words


def test_a_graph_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    folder = write_colors(tmp_path / "models", labels=["red", "green"])
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["outputs"]["logits"]["dimension"] = 2
    path.write_text(json.dumps(manifest))
    words = start_and_fail(
        "--model-repository", str(tmp_path / "models"), "--index-path", str(tmp_path / "index")
    )  # fmt: skip
    assert "expected 'logits' with 2 values per image" in words


def test_settings_come_from_the_command_line_then_environment_then_file(
    repository: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fovea.toml"
    file.write_text('max_batch_size = 4\nmax_images_per_request = 3\nmodels = ["colors:1"]\n')
    environment = {"FOVEA_MAX_IMAGES_PER_REQUEST": "2", "FOVEA_MAX_BATCH_SIZE": "5"}
    options = ("--config", str(file), "--max-batch-size", "6")
    with (
        ServerProcess(repository, tmp_path / "index", *options, environment=environment) as server,
        channel(server.address) as open_channel,
    ):
        stub = models_pb2_grpc.ModelServiceStub(open_channel)
        assert stub.GetModel(models_pb2.GetModelRequest(), timeout=10).model.max_batch_size == 6
        with pytest.raises(grpc.RpcError, match="3 images; expected 1 to 2"):
            classification_pb2_grpc.ClassificationServiceStub(open_channel).Classify(gray(3), timeout=10)


def test_a_file_with_an_unknown_setting_is_refused(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "fovea.toml"
    file.write_text("max_batchsize = 4\n")
    words = start_and_fail("--model-repository", str(repository), "--config", str(file))
    assert "unknown setting max_batchsize" in words
    assert "max_batch_size" in words
    file.write_text("queue_capacity = 'many'\n")
    assert "'many' is not a valid integer" in start_and_fail("--config", str(file))
    file.write_text("models = 'colours'")  # a single name stands for a list of one
    assert "models names 'colours'" in start_and_fail(
        "--model-repository", str(repository), "--config", str(file)
    )
    file.write_text("port = ")
    assert "Invalid value" in start_and_fail("--config", str(file))


def test_a_connection_is_closed_at_its_age(repository: Path, tmp_path: Path) -> None:
    states: list[grpc.ChannelConnectivity] = []
    closed = threading.Event()

    def watch(state: grpc.ChannelConnectivity) -> None:
        states.append(state)
        if grpc.ChannelConnectivity.READY in states[:-1] and state is not grpc.ChannelConnectivity.READY:
            closed.set()

    options = ("--max-connection-age-s", "0.5", "--drain-timeout-s", "5")
    with (
        ServerProcess(repository, tmp_path / "index", *options) as server,
        channel(server.address) as open_channel,
    ):
        open_channel.subscribe(watch, try_to_connect=True)
        assert closed.wait(timeout=30)
        open_channel.unsubscribe(watch)
        # The client reconnects by itself: the call below doesn't notice.
        stub = classification_pb2_grpc.ClassificationServiceStub(open_channel)
        assert stub.Classify(gray(), timeout=10).results[0].classification.classes


def test_a_connection_carries_no_more_calls_at_a_time_than_allowed(tmp_path: Path) -> None:
    write_slow(tmp_path / "models")
    options = ("--max-concurrent-streams", "2", "--max-batch-size", "1")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", *options) as server,
        channel(server.address) as open_channel,
    ):
        stub = classification_pb2_grpc.ClassificationServiceStub(open_channel)
        calls = [stub.Classify.future(gray(), timeout=60) for _ in range(6)]
        deepest = 0.0
        while not all(call.done() for call in calls):
            deepest = max(deepest, server.metrics()['fovea_queue_depth{model="slow"}'])
            time.sleep(0.01)
        assert all(call.result().results for call in calls)
        assert 1 <= deepest <= 2


def test_help_explains_every_setting() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for setting in fields(Config):
        name = setting.metadata["option"] or setting.name
        assert f"--{name.replace('_', '-')} " in result.stdout.replace("\n", " ")
    assert "16777216" in result.stdout


def test_the_query_commands_load_no_model_runtime() -> None:
    code = (
        "import sys, service.cli; print([m for m in ('onnxruntime', 'faiss', 'torch') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"
