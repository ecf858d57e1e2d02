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
    """Answers a stream as it is told to: (the id, the number of results) of each message."""

    def __init__(self, *answers: tuple[int, int]) -> None:
        self._answers = answers

    def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:  # noqa: N802 - as below
        """Not asked here."""
        raise NotImplementedError

    def ClassifyStream(  # noqa: N802 - the contract's name
        self, request_iterator: Iterable[pb.ClassifyStreamRequest], context: Any
    ) -> Iterator[pb.ClassifyStreamResponse]:
        for _, (number, count) in zip(request_iterator, self._answers, strict=False):
            score = pb.ClassScore(label="red", index=0, probability=1.0)
            result = pb.ClassifyResult(classification=pb.Classification(classes=[score]))
            yield pb.ClassifyStreamResponse(id=number, response=pb.ClassifyResponse(results=[result] * count))


@contextmanager
def misbehaving(*answers: tuple[int, int]) -> Iterator[str]:
    """The address of a server that answers so."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    classification_pb2_grpc.add_ClassificationServiceServicer_to_server(Misbehaving(*answers), server)
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
async def test_another_messages_answer_is_refused(answers: list[tuple[int, int]], message: str) -> None:
    images = [of_class(0)] * 3
    with misbehaving(*answers) as address:
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
