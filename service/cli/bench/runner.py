"""Sends a workload, in a closed or an open loop, and records what becomes of it.

In a closed loop each caller waits for its answer before it calls again: it finds out what a server can
do, and never overloads it. In an open loop calls are due by a schedule whatever the server does, as those
of many independent callers are; latency counts from when a call was due, so that a stall isn't hidden by
calls that were held back (coordinated omission; Gil Tene, How NOT to Measure Latency).
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.cli.bench.methods import OK
from service.cli.bench.recorder import Recorder, Recording
from service.cli.bench.wire import StreamLane, UnaryLane, Wire
from service.cli.bench.workload import Workload

Lane = StreamLane | UnaryLane
_TICK_S = 0.02
# A caller who is refused without being told when to come back, or meets an error.
_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True)
class Terms:
    """How callers behave, and for how long.

    Attributes:
        duration_s: of the measured time.
        warm_up_s: load before it, which isn't counted.
        deadline_s: of each call; None: none.
        never_cancel: keep the deadline from the server, which so never learns that a caller gave up.
        patience_s: how long a call without a deadline, or whose caller never cancels, is waited for.
        max_in_flight: calls of an open loop that are under way at most; what is due beyond is not sent.
    """

    duration_s: float
    warm_up_s: float = 0.0
    deadline_s: float | None = None
    never_cancel: bool = False
    patience_s: float = 30.0
    max_in_flight: int = 2000

    @property
    def told_s(self) -> float | None:
        """The deadline that the server is told, in seconds from the beginning of a call."""
        return None if self.never_cancel else self.deadline_s or self.patience_s

    def recorder(self) -> Recorder:
        """For these terms."""
        return Recorder(self.warm_up_s, self.warm_up_s + self.duration_s, self.deadline_s)


async def closed_loop(wire: Wire, workload: Workload, terms: Terms, callers: int) -> Recording:
    """Keep `callers` calls under way; what ends in the measured time counts.

    A refused caller comes back when the server says, or after 10 ms. On streams each caller is one
    message under way; callers are dealt to the wire's streams in turn.
    """
    recorder, messages = terms.recorder(), workload.messages
    until_s = terms.warm_up_s + terms.duration_s
    async with _observed(recorder) as started:

        async def call_over_and_over(number: int) -> None:
            lane: Lane = wire.lanes[number % len(wire.lanes)]
            # Callers begin at different images.
            position = number * len(messages) // callers
            while (began := time.perf_counter() - started) < until_s:
                message = messages[position % len(messages)]
                reply = await lane.exchange(message, terms.told_s, terms.patience_s)
                position += 1
                ended = time.perf_counter() - started
                recorder.call(ended, ended - began, reply)
                if reply.code != OK and reply.code != "DEADLINE_EXCEEDED":
                    pause_s = _PAUSE_S if reply.retry_after_s is None else max(reply.retry_after_s, 0.001)
                    await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))

        await asyncio.gather(*(call_over_and_over(number) for number in range(callers)))
    return recorder.recording


async def open_loop(wire: Wire, workload: Workload, terms: Terms, due_s: Iterable[float]) -> Recording:
    """Make a call whenever one is due; what was due in the measured time counts.

    A call is not sent when `max_in_flight` are under way, or when the generator is so late that its
    deadline has passed already; both are counted.

    Args:
        wire, workload, terms: what to send where, and how.
        due_s: ascending, in seconds from the beginning of the warm-up.
    """
    recorder, messages, lanes = terms.recorder(), workload.messages, wire.lanes
    under_way: set[asyncio.Task[None]] = set()
    async with _observed(recorder) as started:

        async def call(lane: Lane, message: bytes, due: float, told_s: float | None) -> None:
            reply = await lane.exchange(message, told_s, terms.patience_s)
            recorder.call(due, time.perf_counter() - started - due, reply)

        for number, due in enumerate(due_s):
            # Also when it is late already: replies have to be read all the same.
            await asyncio.sleep(max(due - (time.perf_counter() - started), 0.0))
            lag_s = time.perf_counter() - started - due
            recorder.send_lag(due, lag_s)
            told_s = terms.told_s
            # A caller's deadline runs from when it wanted to call.
            if told_s is not None and terms.deadline_s is not None:
                told_s -= lag_s
            too_late = terms.deadline_s is not None and lag_s >= terms.deadline_s
            if too_late or len(under_way) >= terms.max_in_flight:
                recorder.not_sent(due)
                continue
            task = asyncio.create_task(
                call(lanes[number % len(lanes)], messages[number % len(messages)], due, told_s)
            )
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        # Each of them ends by its deadline or by its caller's patience.
        await asyncio.gather(*under_way)
    return recorder.recording


@asynccontextmanager
async def _observed(recorder: Recorder) -> AsyncIterator[float]:
    """Watch the generator itself meanwhile; gives the start, as `perf_counter` counts."""
    # What is there stays there: no collection needs to look at it.
    gc.collect()
    gc.freeze()
    recording, started, cpu_s = recorder.recording, time.perf_counter(), time.process_time()

    async def tick() -> None:
        while True:
            due = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            recording.loop_lag.record(max(time.perf_counter() - due, 0.0))

    ticking = asyncio.create_task(tick())
    try:
        yield started
    finally:
        ticking.cancel()
        recording.wall_s = time.perf_counter() - started
        recording.cpu_s = time.process_time() - cpu_s
        gc.unfreeze()
