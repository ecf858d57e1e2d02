"""The pool of threads: bounded, forgetful of those who left, and never in the way of the end."""

import asyncio
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.errors import Overloaded
from service.workers import WorkerPool

TIMEOUT_S = 30.0


class Blocker:
    """Work that runs until it is told to stop."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> str:
        self.started.set()
        assert self.go_on.wait(TIMEOUT_S)
        return "done"


async def test_it_gives_back_what_the_work_gives_or_raises() -> None:
    pool = WorkerPool("test", 2, 10)

    def fail() -> None:
        raise ZeroDivisionError("as arranged")

    assert await asyncio.gather(*(pool.run(lambda i=i: i * i) for i in range(8))) == [i * i for i in range(8)]  # type: ignore[misc] # bound early
    with pytest.raises(ZeroDivisionError, match="as arranged"):
        await pool.run(fail)
    assert pool.close()


async def test_a_full_queue_refuses() -> None:
    pool, blocker = WorkerPool("test", 1, 2), Blocker()
    running = asyncio.create_task(pool.run(blocker))
    await asyncio.to_thread(blocker.started.wait, TIMEOUT_S)
    waiting = [asyncio.create_task(pool.run(lambda: "waited")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"test queue is full \(2\)"):
        await pool.run(lambda: "too many")
    blocker.go_on.set()
    assert await asyncio.gather(running, *waiting) == ["done", "waited", "waited"]
    assert pool.close()


async def test_work_whose_caller_left_is_not_begun_and_holds_on_to_nothing() -> None:
    pool, blocker = WorkerPool("test", 1, 2), Blocker()
    running = asyncio.create_task(pool.run(blocker))
    await asyncio.to_thread(blocker.started.wait, TIMEOUT_S)
    begun: list[str] = []

    class Body:
        """Stands for the megabytes of an image."""

        def read(self) -> None:
            begun.append("read")

    body = Body()
    left = weakref.ref(body)
    leaving = asyncio.create_task(pool.run(body.read))
    await asyncio.sleep(0)
    del body
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    del leaving
    gc.collect()
    assert left() is None  # while the thread is still busy with the other work
    staying = [asyncio.create_task(pool.run(lambda: "room again")) for _ in range(2)]
    blocker.go_on.set()
    assert await asyncio.gather(*staying) == ["room again"] * 2
    assert await running == "done"
    assert begun == []
    assert pool.close()


async def test_closing_does_not_wait_for_ever() -> None:
    pool, blocker = WorkerPool("test", 1, 2), Blocker()
    running = asyncio.create_task(pool.run(blocker))
    await asyncio.to_thread(blocker.started.wait, TIMEOUT_S)
    assert not pool.close(timeout_s=0.01)
    blocker.go_on.set()
    assert await running == "done"
    assert pool.close(timeout_s=TIMEOUT_S)


async def busy_pool(capacity: int) -> tuple[WorkerPool, Blocker, "asyncio.Future[str]"]:
    """A pool whose only thread is at work."""
    pool, blocker = WorkerPool("test", 1, capacity), Blocker()
    running = pool.submit(blocker)
    await asyncio.to_thread(blocker.started.wait, TIMEOUT_S)
    return pool, blocker, running


async def test_what_waits_is_counted() -> None:
    pool, blocker, running = await busy_pool(10)
    assert pool.waiting == 0
    waiting = [pool.submit(lambda: None) for _ in range(3)]
    assert pool.waiting == 3
    waiting[1].cancel()
    assert pool.waiting == 2
    blocker.go_on.set()
    await asyncio.gather(running, waiting[0], waiting[2])
    assert pool.waiting == 0
    assert pool.close()


async def test_work_begins_in_the_order_of_submission() -> None:
    pool, blocker, running = await busy_pool(100)
    order: list[int] = []
    waiting = [pool.submit(lambda i=i: order.append(i)) for i in range(20)]  # type: ignore[misc] # bound early
    for i in (3, 4, 19):
        waiting[i].cancel()
    blocker.go_on.set()
    await asyncio.gather(running, *waiting, return_exceptions=True)
    assert order == [i for i in range(20) if i not in (3, 4, 19)]
    assert pool.close()


async def test_what_callers_forgot_does_not_pile_up() -> None:
    pool, blocker, running = await busy_pool(10)
    staying = [pool.submit(lambda i=i: i) for i in range(5)]  # type: ignore[misc] # bound early
    for _ in range(10_000):
        pool.submit(lambda: pytest.fail("begun")).cancel()
    assert pool.waiting == 5
    assert pool._queue.qsize() < 100
    blocker.go_on.set()
    assert await asyncio.gather(running, *staying) == ["done", 0, 1, 2, 3, 4]
    assert pool.close()


async def test_a_result_that_nobody_waits_for_any_more_is_dropped() -> None:
    pool, blocker, running = await busy_pool(10)
    running.cancel()
    blocker.go_on.set()
    assert await pool.run(lambda: "next") == "next"
    assert running.cancelled()
    assert pool.close()


async def test_finished_work_holds_on_to_nothing() -> None:
    pool = WorkerPool("test", 1, 2)

    class Pixels:
        """Stands for megabytes."""

    def work(taken: Pixels) -> Pixels:
        gone.append(weakref.ref(taken))
        made = Pixels()
        gone.append(weakref.ref(made))
        return made

    gone: list[weakref.ref[Pixels]] = []
    result = await pool.run(partial(work, Pixels()))
    assert isinstance(result, Pixels)
    await pool.run(lambda: None)  # the thread is done with the first
    assert gone[0]() is None
    del result
    assert gone[1]() is None
    assert pool.close()


async def test_a_busy_loop_is_woken_once_for_all_that_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    wakes = 0

    def counted(wake: Callable[..., object]) -> Callable[..., object]:
        def count(*args: object) -> object:
            nonlocal wakes
            wakes += 1
            return wake(*args)

        return count

    if sys.platform == "linux":
        monkeypatch.setattr(os, "eventfd_write", counted(os.eventfd_write))
    else:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_soon_threadsafe", counted(loop.call_soon_threadsafe))
    pool, last = WorkerPool("test", 1, 200), threading.Event()
    work = [pool.submit(lambda i=i: i) for i in range(100)]  # type: ignore[misc] # bound early
    work.append(pool.submit(lambda: last.set() or 100))  # type: ignore[func-returns-value] # so it is None
    last.wait(TIMEOUT_S)  # the loop is busy with this
    assert await asyncio.gather(*work) == list(range(101))
    assert 1 <= wakes <= 2  # the last of them may have come when the loop was at it again
    assert pool.close()


async def test_work_that_raises_stop_iteration_fails_alone() -> None:
    pool = WorkerPool("test", 1, 10)
    ended = pool.submit(lambda: next(iter(())))
    assert await pool.run(lambda: "next") == "next"
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        await ended
    assert pool.close()


def test_a_pool_serves_one_loop_after_another() -> None:
    pool = WorkerPool("test", 1, 10)
    for number in range(2):
        assert asyncio.run(pool.run(lambda number=number: number)) == number  # type: ignore[misc] # bound early
    assert pool.close()


def test_a_loop_that_was_closed_ends_the_thread_and_nothing_else() -> None:
    blocker = Blocker()

    async def leave() -> WorkerPool:
        pool = WorkerPool("test", 1, 10)
        pool.submit(blocker)
        await asyncio.to_thread(blocker.started.wait, TIMEOUT_S)
        return pool

    pool = asyncio.run(leave())
    blocker.go_on.set()
    assert pool.close(TIMEOUT_S)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
async def test_threads_are_nicer_than_the_process() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    for asked in (0, 10, 19):
        pool = WorkerPool("test", 2, 10, niceness=asked)
        assert await pool.run(niceness) == min(own + asked, 19)
        assert pool.close()
    assert niceness() == own


async def test_a_refused_priority_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)
    pool = WorkerPool("test", 1, 10, niceness=10)
    assert await pool.run(lambda: "done") == "done"
    assert pool.close()


async def test_a_nice_thread_makes_no_nicer_ones() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    outer = WorkerPool("outer", 1, 10, niceness=5)
    inner = await outer.run(lambda: WorkerPool("inner", 1, 10, niceness=5))
    assert await inner.run(niceness) == min(own + 5, 19)
    assert inner.close()
    assert outer.close()


@pytest.mark.parametrize("niceness", [-1, 20])
def test_impossible_niceness_is_refused(niceness: int) -> None:
    with pytest.raises(ValueError, match=f"niceness is {niceness}; expected 0 to 19"):
        WorkerPool("test", 1, 10, niceness=niceness)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at its files in /proc")
async def test_a_closed_pool_leaves_no_file_open() -> None:
    async def serve() -> None:
        pool = WorkerPool("test", threads=1, capacity=1)
        assert await pool.run(lambda: 1) == 1
        assert pool.close()

    await serve()
    before = open_files()
    for _ in range(10):
        await serve()
    await asyncio.sleep(0.01)  # its last callbacks
    gc.collect()
    assert open_files() <= before
