"""The client for threads, against a real server."""

import threading
from pathlib import Path
from typing import Any

import fovea
import numpy as np
import pytest
from fovea import Client
from fovea._vision import read_model
from fovea.v1 import models_pb2

from tests.client.pictures import BROKEN, expected_embedding, file_bytes, of_class, pixels
from tests.packages import LABELS, colors_logits
from tests.servers import ServerProcess


def test_takes_a_path_bytes_or_pixels(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    path.write_bytes(file_bytes(of_class(1)))
    for image in (path, str(path), path.read_bytes(), of_class(1)):
        result = client.classify(image)
        assert (result.label, result.model, result.version) == ("green", "colors", "1")


def test_probabilities_are_the_softmax_of_the_logits(client: Client) -> None:
    image = pixels((40, 80, 20))
    result = client.classify(image, include_logits=True)
    logits = colors_logits(image)
    assert result.logits is not None
    assert result.logits.dtype == np.float32
    np.testing.assert_allclose(result.logits, logits, rtol=1e-5)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [score.label for score in result.classes] == ["green", "red", "blue"]
    for score in result.classes:
        assert LABELS[score.index] == score.label
        assert score.probability == pytest.approx(expected[score.index], rel=1e-4)
    assert result.probability == result.classes[0].probability


def test_top_k_bounds_the_classes(client: Client) -> None:
    assert len(client.classify(of_class(0), top_k=1).classes) == 1
    assert client.classify(of_class(0)).logits is None
    with pytest.raises(ValueError, match="top_k is 0; expected at least 1"):
        client.classify(of_class(0), top_k=0)


def test_a_single_bad_image_raises_its_own_error(client: Client) -> None:
    with pytest.raises(fovea.InvalidImage, match=r"broken or cut short|not an image") as caught:
        client.classify(BROKEN)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_a_missing_file_is_an_os_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        client.classify(tmp_path / "absent.jpg")


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "a raw image is uint8; got float32"),
        (np.zeros((4, 4), np.uint8), ValueError, r"shape \[height, width, 3\]; got \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"shape \[height, width, 3\]; got \[4, 4, 4\]"),
        (7, TypeError, "an image is a path.*got int"),
    ],
)
def test_what_is_no_image_is_refused_before_sending(image: Any, kind: type, message: str) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(kind, match=message):
        client.classify(image)


def test_an_image_above_the_message_cap_is_refused_before_sending() -> None:
    with (
        Client("127.0.0.1:1", max_message_bytes=65536) as client,
        pytest.raises(fovea.InvalidImage, match="196,608 bytes; at most 57,344 fit"),
    ):
        client.classify(of_class(0, size=256))


def test_an_unknown_model_is_not_found_and_named_in_the_log(client: Client) -> None:
    with pytest.raises(fovea.NotFound, match="colors") as caught:
        client.classify(of_class(0), model="missing")
    assert caught.value.code == "NOT_FOUND"
    assert caught.value.request_id
    assert caught.value.request_id in str(caught.value)


def test_a_batch_keeps_order_and_fails_image_by_image(server: ServerProcess, tmp_path: Path) -> None:
    images: list[Any] = [of_class(i) for i in range(50)]
    images[7] = BROKEN
    images[33] = tmp_path / "absent.jpg"
    images[49] = np.zeros((200, 200, 3), np.uint8)
    with Client(server.address, max_images=8, max_message_bytes=65536) as client:
        results = client.classify_batch(images)
    assert len(results) == 50
    for i, result in enumerate(results):
        if i in (7, 33, 49):
            assert isinstance(result, fovea.InvalidImage)
        else:
            assert isinstance(result, fovea.Classification)
            assert result.label == LABELS[i % 3]
    assert "absent.jpg can't be read: No such file" in str(results[33])
    assert "120,000 bytes" in str(results[49])


def test_a_batch_above_the_servers_caps_is_split(client: Client, server: ServerProcess) -> None:
    images = [of_class(i) for i in range(300)]
    with (
        Client(server.address, max_images=300) as unsplit,
        pytest.raises(fovea.InvalidArgument, match="300"),
    ):
        unsplit.classify_batch(images)
    assert _labels(client.classify_batch(images)) == [LABELS[i % 3] for i in range(300)]
    # 8 × 3 MB don't fit into one message of 16 MiB.
    large = client.classify_batch([of_class(i, size=1000) for i in range(8)])
    assert _labels(large) == [LABELS[i % 3] for i in range(8)]


def _labels(results: list[fovea.Classification | fovea.FoveaError]) -> list[str]:
    return [result.code if isinstance(result, fovea.FoveaError) else result.label for result in results]


def test_one_image_is_no_batch(client: Client) -> None:
    for one in ("photo.jpg", b"bytes", of_class(0)):
        with pytest.raises(TypeError, match="expected several images"):
            client.classify_batch(one)  # type: ignore[arg-type] # the mistake that is tested
    assert client.classify_batch([]) == []


def test_embeddings_are_the_models(client: Client) -> None:
    result = client.embed(of_class(2))
    assert result.vector.dtype == np.float32
    np.testing.assert_allclose(result.vector, expected_embedding(of_class(2)), rtol=1e-5)
    assert result.fingerprint == client.model("colors").fingerprint
    first, second, third = client.embed_batch([of_class(0), BROKEN, of_class(1)])
    assert isinstance(first, fovea.Embedding)
    assert isinstance(second, fovea.InvalidImage)
    assert isinstance(third, fovea.Embedding)
    np.testing.assert_allclose(third.vector, expected_embedding(of_class(1)), rtol=1e-5)


def test_models_are_described(client: Client) -> None:
    models = {model.name: model for model in client.models()}
    colors = models["colors"]
    assert colors.is_default
    assert colors.labels == LABELS
    assert (colors.input_height, colors.input_width, colors.embedding_dimension) == (8, 8, 24)
    assert (colors.task, colors.precision) == ("single_label", "fp32")
    assert colors.preprocessing == fovea.Preprocessing(8, "bilinear", False)
    assert client.model() == colors
    with pytest.raises(fovea.NotFound, match="colors"):
        client.model("missing")


def test_of_an_older_server_the_preprocessing_is_not_known() -> None:
    assert read_model(models_pb2.Model(name="colors")).preprocessing is None


def test_ready_asks_the_standard_health_service(client: Client) -> None:
    assert client.ready()
    assert client.ready("colors")
    with pytest.raises(fovea.NotFound, match="no model 'missing'"):
        client.ready("missing")
    client.wait_until_ready(timeout=10)


def test_nobody_there() -> None:
    with Client("127.0.0.1:1", timeout=10) as client:
        assert not client.ready()
        with pytest.raises(fovea.Unavailable) as caught:
            client.models()
        assert not caught.value.request_id
        with pytest.raises(
            fovea.DeadlineExceeded, match=r"no server was ready at 127\.0\.0\.1:1 within 0\.2 s"
        ):
            client.wait_until_ready(timeout=0.2)


def test_a_passed_timeout_is_deadline_exceeded(silent_address: str) -> None:
    with Client(silent_address) as client, pytest.raises(fovea.DeadlineExceeded):
        client.models(timeout=0.05)
    with Client(silent_address, timeout=0.05) as hasty, pytest.raises(fovea.DeadlineExceeded):
        hasty.classify_batch([of_class(0)])


def test_one_client_serves_many_threads(client: Client) -> None:
    wrong: list[str] = []

    def ask(index: int) -> None:
        for strength in range(100, 110):
            image = of_class(index, strength)
            result = client.classify(image, include_logits=True)
            if result.logits is None or not np.allclose(result.logits, colors_logits(image), rtol=1e-5):
                wrong.append(f"{index}: {result}")

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": 5}, "retries is 5; expected 0 to 4"),
        ({"timeout": -1.0}, "timeout is -1.0"),
        ({"max_message_bytes": 10}, "max_message_bytes is 10"),
        ({"max_images": 0}, "max_images is 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(**options)
