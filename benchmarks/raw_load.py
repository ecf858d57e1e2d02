"""Closed loops of ready-made messages: the client does so little that the server is the limit."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import uvloop

from benchmarks.pinned import PinnedProcess

_WARM_UP_S = 0.3
# A server that is busy for less than this share of the time has waited for its client.
_BUSY = 0.9
_LARGEST_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Rate:
    """What a server managed in one round.

    Attributes:
        per_s: messages answered per second.
        busy: the server's processor time ÷ the round's.
    """

    per_s: float
    busy: float

    @property
    def client_limited(self) -> bool:
        """Whether the server could have done more."""
        return self.busy < _BUSY


# How many answers a reply holds.
Answers = Callable[[bytes], int]


def one_of(reply_bytes: int) -> Answers:
    """One answer, as long as it should be: an error is short."""

    def answers(reply: bytes) -> int:
        if len(reply) != reply_bytes:
            raise SystemExit(f"an answer has {len(reply)} bytes; expected {reply_bytes}: {reply[:300]!r}")
        return 1

    return answers


class _Counter:
    def __init__(self, answers_in: Answers) -> None:
        self.answers, self.stopped, self._answers_in = 0, False, answers_in

    def add(self, reply: bytes) -> int:
        """How many answers came with it."""
        answers = self._answers_in(reply)
        self.answers += answers
        return answers


def unary(
    server: PinnedProcess, method: str, body: bytes, reply_bytes: int, *, callers: int, seconds: float
) -> Rate:
    """`callers` callers on four connections, each calls again as soon as it is answered."""

    async def work(number: int, channels: list[grpc.aio.Channel], counter: _Counter) -> None:
        call: Any = channels[number % len(channels)].unary_unary(method)
        while not counter.stopped:
            counter.add(await call(body))

    return _measure(server, work, one_of(reply_bytes), workers=callers, connections=4, seconds=seconds)


def stream(
    server: PinnedProcess,
    method: str,
    body: bytes,
    answers_in: Answers,
    *,
    streams: int,
    outstanding: int,
    seconds: float,
) -> Rate:
    """`streams` streams on a connection each, with `outstanding` messages not yet answered on each."""

    async def work(number: int, channels: list[grpc.aio.Channel], counter: _Counter) -> None:
        call: Any = channels[number].stream_stream(method)()
        room = asyncio.Semaphore(outstanding)

        async def send() -> None:
            while not counter.stopped:
                await room.acquire()
                await call.write(body)
            await call.done_writing()

        sending = asyncio.create_task(send())
        while (reply := await call.read()) is not grpc.aio.EOF:
            for _ in range(counter.add(reply)):
                room.release()
        await sending

    return _measure(server, work, answers_in, workers=streams, connections=streams, seconds=seconds)


def one_call(address: str, method: str, body: bytes) -> bytes:
    """The answer to one message."""
    with grpc.insecure_channel(address, options=channel_options(0)) as channel:
        call: Any = channel.unary_unary(method)
        reply: bytes = call(body, timeout=30)
        return reply


def one_message(address: str, method: str, body: bytes) -> bytes:
    """The answer to one message of a stream."""
    with grpc.insecure_channel(address, options=channel_options(0)) as channel:
        call: Any = channel.stream_stream(method)
        reply: bytes = next(call(iter([body]), timeout=30))
        return reply


def channel_options(number: int) -> list[tuple[str, int]]:
    """Of a channel with a connection of its own by that number; its messages may be large."""
    return [
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
        ("fovea.connection", number),  # channels of equal options share one connection
    ]


def _measure(
    server: PinnedProcess, work: Any, answers_in: Answers, *, workers: int, connections: int, seconds: float
) -> Rate:
    async def main() -> Rate:
        counter = _Counter(answers_in)
        channels = [
            grpc.aio.insecure_channel(server.address, options=channel_options(number))
            for number in range(connections)
        ]
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(work(number, channels, counter))
            await asyncio.sleep(_WARM_UP_S)
            answers, started, cpu_s = counter.answers, time.perf_counter(), server.cpu_s()
            await asyncio.sleep(seconds)
            elapsed = time.perf_counter() - started
            rate = Rate((counter.answers - answers) / elapsed, (server.cpu_s() - cpu_s) / elapsed)
            counter.stopped = True
        for channel in channels:
            await channel.close()
        return rate

    result: Coroutine[Any, Any, Rate] = main()
    return uvloop.run(result)
