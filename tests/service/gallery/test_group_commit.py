"""Upserts that wait at the same time are one write; each has its own end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineExpired, IndexUnusable, InvalidRequest, Overloaded
from service.gallery import group_commit
from service.gallery.group_commit import Entry, GroupCommit
from service.retrieval.index import Item
from service.workers import WorkerPool
from tests.service.gallery.conftest import in_a_minute
from tests.service.gallery.gate import Gate


class Store:
    """Takes items as an index does; refuses all where one is called `bad`, and all when it is full."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.full = False

    def write(self, items: Sequence[Item]) -> None:
        if self.full:
            raise IndexUnusable("the disk is full")
        if any(item.id == "bad" for item in items):
            raise InvalidRequest("bad isn't taken")
        self.writes.append([item.id for item in items])


class House:
    """A group in front of a thread that can be kept busy."""

    def __init__(self, pool: WorkerPool) -> None:
        self.store = Store()
        self.pool = pool
        self.group = GroupCommit(self.store.write, pool.submit)
        self._gate = Gate()

    async def keep_busy(self) -> None:
        self.pool.submit(self._gate.wait)
        await self._gate.until_begun()

    def go_on(self) -> None:
        self._gate.opened.set()

    def add(self, *names: str, check: Any = lambda: None, seconds: float = 60) -> "asyncio.Future[None]":
        items = [Item(name, np.zeros(1, np.float32)) for name in names]
        deadline = in_a_minute() - 60 + seconds
        entry = Entry(items, check, deadline, asyncio.get_running_loop().create_future())
        self.group.add(entry)
        return entry.written


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Busy until it is told to go on."""
    pool = WorkerPool("write", 1, 10)
    house = House(pool)
    await house.keep_busy()
    yield house
    house.go_on()
    assert await asyncio.to_thread(pool.close, 30)


async def outcomes(*written: "asyncio.Future[None]") -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*written, return_exceptions=True), 30)


async def test_what_waits_together_is_written_together_in_order(house: House) -> None:
    written = [house.add(f"{n}", f"{n}'") for n in range(5)]
    house.go_on()
    assert await outcomes(*written) == [None] * 5
    assert house.store.writes == [[f"{n}{mark}" for n in range(5) for mark in ("", "'")]]
    assert await outcomes(house.add("later")) == [None]
    assert house.store.writes[1:] == [["later"]]


async def test_each_has_its_own_end(house: House) -> None:
    def refuse() -> None:
        raise ZeroDivisionError("replaced")

    good = house.add("a")
    refused = house.add("b", check=refuse)
    late = house.add("c", seconds=-1)
    left = house.add("d")
    left.cancel()
    other = house.add("e")
    house.go_on()
    results = await outcomes(good, refused, late, other)
    assert [type(result) for result in results] == [
        type(None),
        ZeroDivisionError,
        DeadlineExpired,
        type(None),
    ]
    assert house.store.writes == [["a", "e"]]


async def test_one_that_is_refused_takes_no_other_with_it(house: House) -> None:
    written = [house.add("a"), house.add("bad", "b"), house.add("c")]
    house.go_on()
    results = await outcomes(*written)
    assert [type(result) for result in results] == [type(None), InvalidRequest, type(None)]
    assert house.store.writes == [["a"], ["c"]]


async def test_a_disk_that_refuses_is_told_to_all(house: House) -> None:
    house.store.full = True
    written = [house.add("a"), house.add("b")]
    house.go_on()
    assert [type(result) for result in await outcomes(*written)] == [IndexUnusable] * 2
    house.store.full = False
    assert await outcomes(house.add("a")) == [None]


async def test_not_too_much_is_written_together(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_MAX_ITEMS_TOGETHER", 5)
    written = [house.add(*(f"{n}{letter}" for letter in "xyz"[: n + 1])) for n in range(3)]
    written.append(house.add(*map(str, range(9))))
    house.go_on()
    assert await outcomes(*written) == [None] * 4
    assert [len(write) for write in house.store.writes] == [3, 3, 9]


async def test_too_many_are_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_MAX_WAITING", 3)
    written = [house.add(f"{n}") for n in range(3)]
    with pytest.raises(Overloaded, match="3 upserts wait for this collection"):
        house.add("one more")
    house.go_on()
    assert await outcomes(*written) == [None] * 3
    assert await outcomes(house.add("one more")) == [None]


async def test_a_queue_that_is_full_holds_nothing(house: House) -> None:
    waiting = [house.pool.submit(lambda: None) for _ in range(10)]
    with pytest.raises(Overloaded, match="the write queue is full"):
        house.add("a")
    house.go_on()
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert await outcomes(house.add("b")) == [None]
    assert house.store.writes == [["b"]]
