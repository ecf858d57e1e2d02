"""Answers that don't fit their questions are a fault, never somebody else's results."""

from collections.abc import Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import fovea
import grpc
import pytest
from fovea import AsyncClient, Client
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import classification_pb2_grpc

from tests.client.pictures import of_class


class Misbehaving(classification_pb2_grpc.ClassificationServiceServicer):
    """Answers a stream as it is told to: (the id, the number of results) of each message.

    So many answers come in one reply.
    """

    def __init__(self, *answers: tuple[int, int], together: int) -> None:
        self._answers, self._together = answers, together

    def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:  # noqa: N802 - as below
        """Not asked here."""
        raise NotImplementedError

    def ClassifyStream(  # noqa: N802 - the contract's name
        self, request_iterator: Iterable[pb.ClassifyStreamRequest], context: Any
    ) -> Iterator[pb.ClassifyStreamResponse]:
        ready = []
        for _, (number, count) in zip(request_iterator, self._answers, strict=False):
            score = pb.ClassScore(label="red", index=0, probability=1.0)
            result = pb.ClassifyResult(classification=pb.Classification(classes=[score]))
            response = pb.ClassifyResponse(results=[result] * count)
            ready.append(pb.ClassifyStreamResponse(id=number, response=response))
            if len(ready) == self._together:
                ready[0].following.extend(ready[1:])
                yield ready[0]
                ready = []


@contextmanager
def misbehaving(*answers: tuple[int, int], together: int = 1) -> Iterator[str]:
    """The address of a server that answers so."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    classification_pb2_grpc.add_ClassificationServiceServicer_to_server(
        Misbehaving(*answers, together=together), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(0, 1), (2, 1)], "answered message 2 where 1 was next"),
        ([(0, 1), (0, 1)], "answered message 0 where 1 was next"),
        ([(0, 1), (1, 2)], "gave 2 results where 1 were asked for"),
        ([(0, 1), (1, 0)], "gave 0 results where 1 were asked for"),
    ],
)
@pytest.mark.parametrize("together", [1, 2])
async def test_another_messages_answer_is_refused(
    answers: list[tuple[int, int]], message: str, together: int
) -> None:
    images = [of_class(0)] * 3
    with misbehaving(*answers, together=together) as address:
        with Client(address) as client:
            results = client.classify_stream(images, batch_size=1)
            assert isinstance(next(results), fovea.Classification)
            with pytest.raises(fovea.Internal, match=message):
                next(results)
        async with AsyncClient(address) as other:
            async_results = other.classify_stream(images, batch_size=1)
            assert isinstance(await anext(async_results), fovea.Classification)
            with pytest.raises(fovea.Internal, match=message):
                await anext(async_results)


async def test_a_stream_that_ends_early_says_so() -> None:
    with misbehaving((0, 1)) as address:
        with Client(address) as client:
            results = client.classify_stream([of_class(0)] * 3, batch_size=1)
            assert isinstance(next(results), fovea.Classification)
            with pytest.raises(fovea.Unavailable, match="ended the stream before"):
                next(results)
        async with AsyncClient(address) as other:
            async_results = other.classify_stream([of_class(0)] * 3, batch_size=1)
            assert isinstance(await anext(async_results), fovea.Classification)
            with pytest.raises(fovea.Unavailable, match="ended the stream before"):
                await anext(async_results)


async def test_answers_that_came_together_are_taken_one_by_one() -> None:
    images = [of_class(0)] * 6
    with misbehaving(*((number, 1) for number in range(6)), together=3) as address:
        with Client(address) as client:
            results = list(client.classify_stream(images, batch_size=1))
        async with AsyncClient(address) as other:
            async_results = [each async for each in other.classify_stream(images, batch_size=1)]
    for taken in (results, async_results):
        assert [isinstance(result, fovea.Classification) for result in taken] == [True] * 6
