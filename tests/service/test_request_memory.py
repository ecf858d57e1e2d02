"""However a request ends, nothing keeps its images: not even until the garbage collector comes by.

Whoever holds on to an image's bytes shows in their reference count.
"""

import asyncio
import gc
import io
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
import numpy as np
import pytest
from PIL import Image

from service.config import Config
from service.decoding import DecodingStage
from service.errors import DeadlineExpired, InferenceFailed, InvalidImage, InvalidRequest, Overloaded
from service.group import Entry, Group
from service.manifest import read_manifest
from service.metrics import Metrics
from service.model import Model, Prediction
from service.pipeline import InferenceRequest, Pipeline
from service.session import ModelSession
from tests.packages import write_colors
from tests.service.one_method import METHOD, one_method
from tests.service.test_requests import png_header

SECONDS = 30.0
LOOKS = 1000


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=[1, 0], ids=["decoding threads", "decoding in runs"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Pipeline, Model]]:
    """The request path without gRPC, with a real model."""
    folder = write_colors(tmp_path / "models")
    config, metrics = Config(), Metrics()
    pipeline = Pipeline(config, request.param, metrics, lambda error: type(error).__name__)
    model = Model(read_manifest(folder), config, config.for_model("colors"), metrics)
    model.batcher.start()
    yield pipeline, model
    assert await model.close(SECONDS)
    assert pipeline.close(SECONDS)


def noise(side: int = 400) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def until_let_go(data: bytes, before: int) -> None:
    """Until nobody but the test holds it; a thread may be about to let go."""
    for _ in range(LOOKS):
        if sys.getrefcount(data) <= before + 1:  # this function's own
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{sys.getrefcount(data) - before - 1} still hold the image")


async def ask(pipeline: Pipeline, model: Model, data: bytes, seconds: float = SECONDS) -> Any:
    request = InferenceRequest(model, [data], time.monotonic() + seconds)
    try:
        return (await pipeline.infer(request))[0]
    except DeadlineExpired:
        return "expired"


BAD = {
    "truncated": lambda: noise()[:-5000],
    "too many pixels": lambda: png_header(60_000, 60_000) + bytes(2_000_000),
    "no picture": lambda: b"no picture" * 200_000,
    "damaged": lambda: noise()[:5000] + bytes(100) + noise()[5100:],
}


@pytest.mark.parametrize("case", BAD)
async def test_an_invalid_large_image_leaves_no_bytes_alive(house: tuple[Pipeline, Model], case: str) -> None:
    data = BAD[case]()
    before = sys.getrefcount(data)
    answer = await ask(*house, data)
    assert isinstance(answer, InvalidImage)
    await until_let_go(data, before)  # while the error is still held


async def test_a_good_one_does_not_either(house: tuple[Pipeline, Model]) -> None:
    data = noise()
    before = sys.getrefcount(data)
    answer = await ask(*house, data)
    assert isinstance(answer, Prediction)
    await until_let_go(data, before)


async def test_one_whose_run_fails_does_not(
    house: tuple[Pipeline, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ModelSession, batch: Any) -> NoReturn:
        raise InferenceFailed("out of memory")

    monkeypatch.setattr(ModelSession, "run", fail)
    data = noise()
    before = sys.getrefcount(data)
    answer = await ask(*house, data)
    assert isinstance(answer, InferenceFailed)
    await until_let_go(data, before)


async def test_one_that_crashes_the_decoder_does_not() -> None:
    stage = DecodingStage(threads=1)
    data = noise()
    before = sys.getrefcount(data)

    def crash(image: bytes) -> NoReturn:
        raise MemoryError

    group: Group[Any] = Group(1, time.monotonic() + SECONDS)
    stage.put(Entry(group, 0), lambda image=data: crash(image), lambda *_: None)  # type: ignore[misc] # a bound default
    assert isinstance((await group.wait())[0], InferenceFailed)
    await until_let_go(data, before)
    assert stage.close(SECONDS)


async def test_one_whose_caller_leaves_does_not(house: tuple[Pipeline, Model]) -> None:
    data = noise()
    before = sys.getrefcount(data)
    tasks = [asyncio.create_task(ask(*house, data)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    del task, tasks
    await until_let_go(data, before)


class Body:
    """A message that counts how many of it there are."""

    alive = 0

    def __init__(self) -> None:
        Body.alive += 1

    def __del__(self) -> None:
        Body.alive -= 1


FAILURES = {
    "invalid": InvalidRequest("no"),
    "refused": Overloaded("no", 10.0),
    "crashed": RuntimeError("a bug"),
}


async def waits_in_vain(request: Body) -> NoReturn:
    """As the pipeline: an error that its group holds, raised through frames that hold the request."""
    group: Group[Any] = Group(1, time.monotonic() + 0.01)
    await group.wait()
    raise AssertionError


@pytest.mark.parametrize("case", [*FAILURES, "expired", "fine"])
async def test_a_call_lets_go_of_its_message_however_it_ends(case: str) -> None:
    async def behave(request: Body, context: Any) -> bytes:
        if case == "expired":
            await waits_in_vain(request)
        if error := FAILURES.get(case):
            raise type(error)(*error.args, *([10.0] if case == "refused" else []))
        return b""

    async with one_method(behave, SECONDS, read=lambda _: Body()) as channel:
        for _ in range(5):
            try:
                await channel.unary_unary(METHOD)(b"x", timeout=SECONDS)  # any bytes will do
                ended = "fine"
            except grpc.aio.AioRpcError:
                ended = "failed"
            assert (ended == "fine") == (case == "fine")
        for _ in range(LOOKS):
            if not Body.alive:
                break
            await asyncio.sleep(0.005)
        assert Body.alive == 0
