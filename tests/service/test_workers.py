"""The pool of threads: bounded, forgetful of those who left, and never in the way of the end."""

import asyncio
import gc
import threading
import weakref

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
