"""A model without classes, served for real: it embeds, and whoever wants classes of it is told."""

import json
from collections.abc import Iterator
from pathlib import Path

import fovea
import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from fovea.v1 import classification_pb2, classification_pb2_grpc, models_pb2, models_pb2_grpc
from numpy.typing import NDArray

from service.cli import main
from tests.client.pictures import file_bytes
from tests.packages import EMBEDDING_DIMENSION, SIZE, colors_embedding, write_colors, write_embedder
from tests.servers import ServerProcess

REFUSAL = "model 'embedder' (version 1) has no classes"


def pixels(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose default model has no classes, beside one that has."""
    folder = tmp_path_factory.mktemp("embedder")
    write_embedder(folder / "models")
    write_colors(folder / "models")
    with ServerProcess(folder / "models", folder / "index", "--default-model", "embedder") as process:
        yield process


@pytest.fixture
def caller(embedder: ServerProcess) -> Iterator[fovea.Client]:
    with fovea.Client(embedder.address) as connected:
        yield connected


def test_it_embeds(caller: fovea.Client) -> None:
    images = [pixels(seed) for seed in range(5)]
    for results in (caller.embed_batch(images), list(caller.embed_stream(images))):
        for image, result in zip(images, results, strict=True):
            assert isinstance(result, fovea.Embedding)
            np.testing.assert_allclose(result.vector, colors_embedding(image), rtol=1e-5)
            assert result.model == "embedder"


def test_classification_is_refused(caller: fovea.Client, embedder: ServerProcess) -> None:
    refused = (
        'fovea_requests_total{code="FAILED_PRECONDITION",method="/fovea.v1.ClassificationService/Classify"'
    )
    with pytest.raises(fovea.FailedPrecondition) as caught:
        caller.classify(pixels(0))
    assert REFUSAL in caught.value.message
    assert "only makes embeddings" in caught.value.message
    counted = {name: value for name, value in embedder.metrics().items() if name.startswith(refused)}
    assert list(counted) == [refused + ',model="embedder"}']
    assert counted[refused + ',model="embedder"}'] >= 1


@pytest.mark.parametrize("top_k", [0, 1, 1000])
@pytest.mark.parametrize("include_logits", [False, True])
def test_it_is_refused_whatever_is_asked(embedder: ServerProcess, top_k: int, include_logits: bool) -> None:
    with grpc.insecure_channel(embedder.address) as channel:
        request = classification_pb2.ClassifyRequest(top_k=top_k, include_logits=include_logits)
        request.images.add(encoded=file_bytes(pixels(0)))
        with pytest.raises(grpc.RpcError) as caught:
            classification_pb2_grpc.ClassificationServiceStub(channel).Classify(request, timeout=30)
    assert fovea.errors.from_rpc_error(caught.value).code == "FAILED_PRECONDITION"


def test_a_streams_message_is_refused_and_the_stream_goes_on(embedder: ServerProcess) -> None:
    models = ["embedder", "colors", "embedder", "colors"]
    requests = [
        classification_pb2.ClassifyStreamRequest(
            id=number,
            request=classification_pb2.ClassifyRequest(
                model=model,
                images=[{"encoded": file_bytes(pixels(number))}],  # type: ignore[list-item] # protobuf takes a dictionary for a message
            ),
        )
        for number, model in enumerate(models)
    ]
    with grpc.insecure_channel(embedder.address) as channel:
        stub = classification_pb2_grpc.ClassificationServiceStub(channel)
        replies = list(stub.ClassifyStream(iter(requests), timeout=30))
    assert [reply.id for reply in replies] == [0, 1, 2, 3]
    assert [reply.WhichOneof("outcome") for reply in replies] == ["error", "response"] * 2
    assert replies[0].error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert REFUSAL in replies[0].error.message


def test_it_is_described(embedder: ServerProcess, caller: fovea.Client) -> None:
    with grpc.insecure_channel(embedder.address) as channel:
        reply = models_pb2_grpc.ModelServiceStub(channel).GetModel(models_pb2.GetModelRequest(), timeout=30)
    assert reply.model.task == models_pb2.TASK_EMBEDDING
    assert list(reply.model.labels) == []
    described = {model.name: model for model in caller.models()}
    assert (described["embedder"].task, described["embedder"].labels) == ("embedding", ())
    assert described["embedder"].embedding_dimension == EMBEDDING_DIMENSION
    assert described["colors"].task == "single_label"


def test_collections_take_it(caller: fovea.Client) -> None:
    caller.create_collection("vectors", model="embedder")
    images = [pixels(seed) for seed in range(20)]
    for result in caller.upsert(
        "vectors", [fovea.Item(str(i), image=image) for i, image in enumerate(images)]
    ):
        assert result.error is None
    found = caller.search("vectors", image=images[7], top_k=3)
    assert found[0].id == "7"
    assert found[0].score == pytest.approx(1, abs=1e-5)


def test_the_command_line(embedder: ServerProcess, tmp_path: Path) -> None:
    photos = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, photo in enumerate(photos):
        photo.write_bytes(file_bytes(pixels(seed)))

    def run(*arguments: object) -> tuple[int, str, str]:
        environment = {"FOVEA_ADDRESS": embedder.address}
        done = CliRunner().invoke(main, list(map(str, arguments)), env=environment, catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    status, output, error = run("classify", *photos)
    assert (status, output) == (1, "")
    assert error.count(REFUSAL) == 1  # once, not once a photo
    status, output, _ = run("embed", *photos, "--output", tmp_path / "vectors.npz")
    assert status == 0
    assert np.load(tmp_path / "vectors.npz")["vectors"].shape == (3, EMBEDDING_DIMENSION)
    status, output, _ = run("models")
    assert status == 0
    (row,) = [line for line in output.splitlines() if line.startswith("embedder")]
    assert row.split()[-4:-2] == ["0", str(EMBEDDING_DIMENSION)]


def test_a_graph_with_classes_may_be_served_without(tmp_path: Path) -> None:
    """The manifest says what is used; other outputs of the file are left alone."""
    folder = write_colors(tmp_path / "models")
    other = write_embedder(tmp_path / "others", "colors")
    (other / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    text = (other / "manifest.json").read_text().replace(_sha(other), _sha(folder))
    (folder / "manifest.json").write_text(text)
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as process,
        fovea.Client(process.address) as caller,
    ):
        np.testing.assert_allclose(caller.embed(pixels(3)).vector, colors_embedding(pixels(3)), rtol=1e-5)


def _sha(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text())["variants"][0]["sha256"])
