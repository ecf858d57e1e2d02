"""A real server says everywhere what runs its models, and each model runs as its own settings say."""

from pathlib import Path

import grpc
import numpy as np
import pytest
from fovea.v1 import classification_pb2, classification_pb2_grpc, image_pb2, models_pb2, models_pb2_grpc

from service.processor import INT8_INSTRUCTIONS, instruction_sets
from service.providers import missing
from tests.packages import write_network
from tests.servers import ServerProcess


@pytest.mark.skipif(bool(missing("openvino")), reason=missing("openvino"))
@pytest.mark.skipif(not INT8_INSTRUCTIONS & instruction_sets(), reason="a processor without VNNI")
def test_two_models_on_two_engines(tmp_path: Path) -> None:
    write_network(tmp_path / "models", "fast", int8={})
    write_network(tmp_path / "models", "exact", int8={})
    options = (
        "--model-setting", "fast.execution_provider=openvino", "--model-setting", "fast.instances=2",
        "--model-setting", f"fast.compile_cache={tmp_path / 'cache'}",
        "--model-setting", "fast.max_batch_size=20", "--model-setting", "exact.precision=fp32",
    )  # fmt: skip
    with ServerProcess(tmp_path / "models", tmp_path / "index", *options) as server:
        loaded = {line["model"]: line for line in server.logs if line["event"] == "model_loaded"}
        fast, exact = loaded["fast"], loaded["exact"]
        assert (fast["execution_provider"], fast["precision"]) == ("OpenVINOExecutionProvider", "int8")
        assert (fast["instances"], fast["batch_sizes"]) == (2, [1, 2, 4, 8, 16, 20])
        assert (exact["execution_provider"], exact["precision"]) == ("CPUExecutionProvider", "fp32")
        (budget,) = [line for line in server.logs if line["event"] == "thread_budget"]
        assert budget["inference_threads"]["fast"]["instances"] == 2
        names = server.metrics()
        for name, line in loaded.items():
            labels = f'execution_provider="{line["execution_provider"]}",model="{name}",'
            assert names[f'fovea_model_info{{{labels}precision="{line["precision"]}",version="1"}}'] == 1
        with grpc.insecure_channel(server.address) as channel:
            models = {
                model.name: model
                for model in models_pb2_grpc.ModelServiceStub(channel)
                .ListModels(models_pb2.ListModelsRequest(), timeout=10)
                .models
            }
            assert models["fast"].execution_provider == "OpenVINOExecutionProvider"
            assert models["fast"].precision == "int8"
            assert models["fast"].fingerprint.endswith(":int8")
            assert (models["fast"].max_batch_size, models["exact"].max_batch_size) == (20, 8)
            stub = classification_pb2_grpc.ClassificationServiceStub(channel)
            answers = [_top1(stub, name) for name in ("fast", "exact")]
        assert answers[0] == answers[1]
        assert len(answers[0]) == 20
    assert any((tmp_path / "cache" / "openvino" / "int8").iterdir())


def _top1(stub: classification_pb2_grpc.ClassificationServiceStub, model: str) -> list[str]:
    random = np.random.default_rng(2)
    request = classification_pb2.ClassifyRequest(model=model, top_k=1)
    for _ in range(20):
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8).tobytes()
        request.images.append(image_pb2.Image(raw=image_pb2.RawImage(height=8, width=8, data=pixels)))
    reply = stub.Classify(request, timeout=20)
    return [result.classification.classes[0].label for result in reply.results]


@pytest.mark.skipif(not missing("cuda"), reason="a GPU is here")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_stops_the_start(tmp_path: Path, provider: str) -> None:
    write_network(tmp_path / "models")
    options = ("--model-setting", f"network.execution_provider={provider}")
    with (
        pytest.raises(AssertionError, match=f"execution_provider is '{provider}', but .*onnxruntime"),
        ServerProcess(tmp_path / "models", tmp_path / "index", *options),
    ):
        pass
