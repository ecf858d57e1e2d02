"""Bulk streams of the client for threads: order, flow control, and every way to end."""

import itertools
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fovea
import numpy as np
import pytest
from fovea import Client

from tests.client.pictures import BROKEN, expected_embedding, of_class
from tests.client.waiting import eventually
from tests.packages import LABELS, write_colors, write_slow
from tests.servers import ServerProcess


def labels(results: Iterator[fovea.Classification | fovea.FoveaError]) -> list[str]:
    """Each result's label, or its error's code."""
    return [result.code if isinstance(result, fovea.FoveaError) else result.label for result in results]


def test_results_come_in_order_with_errors_in_their_places(client: Client, tmp_path: Path) -> None:
    images: list[Any] = [of_class(i) for i in range(200)]
    expected = [LABELS[i % 3] for i in range(200)]
    for bad in (0, 5, 6, 7, 8, 9, 199):  # 5 to 9 are a whole message
        images[bad] = tmp_path / "absent.png" if bad != 6 else BROKEN
        expected[bad] = "INVALID_ARGUMENT"
    assert labels(client.classify_stream(iter(images), batch_size=5, window=3)) == expected


def test_nothing_in_nothing_out(client: Client) -> None:
    assert list(client.classify_stream([])) == []


def test_only_bad_files(client: Client) -> None:
    assert labels(client.classify_stream(["no/1.png", "no/2.png"])) == ["INVALID_ARGUMENT"] * 2


def test_embeds(client: Client) -> None:
    images = [of_class(i, 100 + i) for i in range(40)]
    results = list(client.embed_stream(images))
    for image, result in zip(images, results, strict=True):
        assert isinstance(result, fovea.Embedding)
        np.testing.assert_allclose(result.vector, expected_embedding(image), rtol=1e-5)
        assert (result.model, result.version) == ("colors", "1")


def test_reads_no_further_ahead_than_the_window(client: Client) -> None:
    pulled = 0

    def source() -> Iterator[Any]:
        nonlocal pulled
        for i in range(120):
            pulled += 1
            yield of_class(i)

    taken = 0
    for _ in client.classify_stream(source(), batch_size=2, window=3):
        taken += 1
        # The window, and the batch of which the results are being taken is still in it.
        assert pulled <= (taken - 1) // 2 * 2 + 2 * 3
    assert taken == pulled == 120


def test_large_images_go_in_messages_that_fit(server: ServerProcess) -> None:
    with Client(server.address, max_message_bytes=1024 * 1024) as client:
        images = [of_class(i, size=400) for i in range(9)]  # 480 kB each, two to a message
        assert labels(client.classify_stream(images, batch_size=9)) == [LABELS[i % 3] for i in range(9)]


def test_an_abandoned_stream_is_cancelled(server: ServerProcess, client: Client) -> None:
    def ended() -> float:
        counted = (item for item in server.metrics().items() if item[0].startswith("fovea_requests_total"))
        return sum(value for name, value in counted if "ClassifyStream" in name)

    before = ended()
    source_closed = threading.Event()

    def endless() -> Iterator[Any]:
        try:
            for i in itertools.count():
                yield of_class(i)
        finally:
            source_closed.set()

    results = client.classify_stream(endless(), batch_size=1, window=2)
    assert labels(itertools.islice(results, 3)) == ["red", "green", "blue"]
    results.close()
    # It has no end, so that nothing but its cancellation ends it.
    assert eventually(lambda: ended() == before + 1)
    assert source_closed.wait(30), "the thread that reads the images is still there"
    assert client.classify(of_class(0)).label == "red"


def test_a_stream_that_is_never_read_sends_nothing(client: Client) -> None:
    read: list[int] = []

    def source() -> Iterator[Any]:
        read.append(1)
        yield of_class(0)

    client.classify_stream(source()).close()
    assert not read


def test_what_the_source_raises_comes_through_after_its_results(client: Client) -> None:
    def source() -> Iterator[Any]:
        yield from (of_class(0), of_class(1), of_class(2))
        raise LookupError("the camera is gone")

    results = client.classify_stream(source(), batch_size=1)
    assert labels(itertools.islice(results, 3)) == ["red", "green", "blue"]
    with pytest.raises(LookupError, match="the camera is gone"):
        next(results)


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_nor_is_anything_else_that_it_raises_lost(client: Client, failure: BaseException) -> None:
    class Source:
        """Not a generator, which GeneratorExit would only close."""

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            raise failure

    raised: list[BaseException] = []

    def ask() -> None:
        try:
            list(client.classify_stream(itertools.chain([of_class(0)], Source()), batch_size=1))
        except BaseException as error:  # noqa: BLE001 - exactly these are tested
            raised.append(error)

    # In a thread that can be left alone, should it wait for ever.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(30)
    assert raised == [failure]


def test_what_is_no_image_is_raised(client: Client) -> None:
    with pytest.raises(TypeError, match="got int"):
        list(client.classify_stream([of_class(0), 7]))  # type: ignore[list-item] # the mistake that is tested


def test_an_unknown_model_is_each_images_error(client: Client) -> None:
    results = list(client.classify_stream([of_class(0)] * 3, model="missing"))
    assert [type(result) for result in results] == [fovea.NotFound] * 3


def test_the_caller_need_not_know_all_images_beforehand(client: Client) -> None:
    """Each answer is had before the next image exists."""
    asked: queue.Queue[int | None] = queue.Queue()

    def source() -> Iterator[Any]:
        while (index := asked.get()) is not None:
            yield of_class(index)

    asked.put(0)
    results = client.classify_stream(source(), batch_size=1)
    for index in (0, 2, 1, 1):
        if index != 0:
            asked.put(index)
        result = next(results)
        assert isinstance(result, fovea.Classification)
        assert result.label == LABELS[index]
    asked.put(None)
    assert next(results, None) is None


def test_wrong_windows_are_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="window is 0"):
        client.classify_stream([], window=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        client.classify_stream([], batch_size=0)
    with pytest.raises(TypeError, match="expected several images"):
        client.classify_stream("photo.jpg")


def test_timeouts_and_a_server_that_dies(tmp_path: Path) -> None:
    """One server of its own for both, since it doesn't survive."""
    write_colors(tmp_path / "models")
    write_slow(tmp_path / "models")
    asked: queue.Queue[int | None] = queue.Queue()

    def source() -> Iterator[Any]:
        while (index := asked.get()) is not None:
            yield of_class(index)

    options = ("--default-model", "colors", "--max-batch-size", "1")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", *options) as server,
        Client(server.address) as client,
    ):
        expired = labels(client.classify_stream([of_class(0)] * 3, model="slow", timeout=0.02))
        assert expired == ["DEADLINE_EXCEEDED"] * 3
        with pytest.raises(fovea.DeadlineExceeded):
            client.classify(of_class(0), model="slow", timeout=0.02)

        asked.put(1)
        results = client.classify_stream(source(), batch_size=1)
        assert labels(itertools.islice(results, 1)) == ["green"]
        server.kill()
        # The source is silent: only the call itself can tell.
        with pytest.raises(fovea.Unavailable):
            next(results)
        asked.put(None)
        assert not client.ready()
        with pytest.raises(fovea.Unavailable):
            list(client.classify_stream([of_class(0)]))
