"""The loop of a bidirectional stream: a bounded number of messages in work, answers in order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fovea.v1 import classification_pb2, embedding_pb2

from service.config import Config

Request = TypeVar("Request", classification_pb2.ClassifyStreamRequest, embedding_pb2.EmbedStreamRequest)
Response = TypeVar("Response")


def message_deadline(timeout_ms: int, config: Config) -> float:
    """A message's own deadline as loop time, from now; 0 means the default."""
    return asyncio.get_running_loop().time() + (timeout_ms or config.default_timeout_ms) / 1000


async def answer_in_order(
    requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Response]], window_images: int
) -> AsyncIterator[Response]:
    """Answer a stream's messages, several at a time, in their order.

    While the window is full nothing is read, so HTTP/2's flow control holds the caller back; and so it
    does while the caller doesn't read the answers.

    Args:
        requests: the caller's messages.
        answer: must turn its own failures into an answer.
        window_images: nothing more is read while this many images are in work.
    """
    pending: deque[tuple[int, asyncio.Task[Response]]] = deque()
    reading: asyncio.Task[Request] | None = None
    in_work, more = 0, True
    iterator = aiter(requests)
    try:
        while more or pending:
            if more and reading is None and in_work < window_images:
                reading = asyncio.ensure_future(anext(iterator))
            waited_for: list[asyncio.Task[Any]] = [pending[0][1]] if pending else []
            if reading is not None:
                waited_for.append(reading)
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done():
                try:
                    request = reading.result()
                except StopAsyncIteration:
                    more = False
                else:
                    cost = max(1, len(request.request.images))
                    in_work += cost
                    pending.append((cost, asyncio.ensure_future(answer(request))))
                reading = None
            while pending and pending[0][1].done():
                cost, task = pending.popleft()
                in_work -= cost
                yield task.result()
    finally:
        left: list[asyncio.Task[Any]] = [task for _, task in pending]
        if reading is not None:
            left.append(reading)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
