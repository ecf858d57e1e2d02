"""The threads in front of the index: deadlines, patience, and long work that nobody waits for any more."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.errors import DeadlineExpired, Overloaded, Unavailable
from service.gallery import threads as module
from service.gallery.threads import IndexThreads, Stop
from tests.client.waiting import until
from tests.service.gallery.conftest import in_a_minute
from tests.service.gallery.gate import Gate


@pytest.fixture
async def threads(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IndexThreads]:
    """With room for three calls that wait."""
    monkeypatch.setattr(module, "_MAX_PENDING_CALLS", 3)
    threads = IndexThreads(1)
    yield threads
    assert await asyncio.to_thread(threads.close, 30) == (True, True)


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_who_is_patient_waits_where_others_are_refused(threads: IndexThreads, kind: str) -> None:
    call = getattr(threads, kind)
    gate = Gate()
    tasks = [asyncio.create_task(call(gate.wait, in_a_minute()))]
    await gate.until_begun()
    tasks += [asyncio.create_task(call(lambda: None, in_a_minute())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="queue is full"):
        await call(lambda: None, in_a_minute())
    patient = asyncio.create_task(call(lambda: "done", in_a_minute(), patient=True))
    with pytest.raises(DeadlineExpired):
        await call(lambda: None, asyncio.get_running_loop().time() + 0.05, patient=True)
    assert not patient.done()
    gate.opened.set()
    assert await asyncio.wait_for(patient, 30) == "done"
    await asyncio.gather(*tasks)


async def test_a_write_is_not_begun_after_its_deadline(threads: IndexThreads) -> None:
    gate, seen = Gate(), []
    first = asyncio.create_task(threads.write(gate.wait, in_a_minute()))
    await gate.until_begun()
    late = asyncio.create_task(threads.write(lambda: seen.append("late"), in_a_minute() - 59.95))
    with pytest.raises(DeadlineExpired):
        await late
    gate.opened.set()
    await first
    await threads.write(lambda: seen.append("next"), in_a_minute())
    assert seen == ["next"]


async def test_long_work_is_told_when_its_caller_leaves(threads: IndexThreads) -> None:
    told: list[BaseException] = []
    gate = Gate()

    def work(stop: Stop) -> None:
        stop.check()
        gate.wait()
        try:
            stop.check()
        except Unavailable as error:
            told.append(error)
            raise

    task = asyncio.create_task(threads.upkeep(work, in_a_minute()))
    await gate.until_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await asyncio.to_thread(until, lambda: bool(told))
    assert "the caller left" in str(told[0])


async def test_long_work_is_told_when_its_deadline_passes() -> None:
    stop = Stop(asyncio.get_running_loop().time() - 1)
    with pytest.raises(DeadlineExpired):
        stop.check()


async def test_long_work_is_told_when_the_server_stops() -> None:
    threads = IndexThreads(1)
    gate = Gate()

    def work(stop: Stop) -> str:
        gate.wait()
        try:
            stop.check()
        except Unavailable:
            return "told"
        return "not told"

    task = asyncio.create_task(threads.upkeep(work, in_a_minute()))
    await gate.until_begun()
    closing = asyncio.create_task(asyncio.to_thread(threads.close, 30))
    for stop in threads._stops:
        assert await asyncio.to_thread(stop._left.wait, 30)
    gate.opened.set()
    assert await closing == (True, True)
    assert await asyncio.wait_for(task, 30) == "told"
