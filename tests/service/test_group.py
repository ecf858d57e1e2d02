"""What one caller waits for."""

import asyncio

import pytest

from service.entry_queue import EntryQueue
from service.errors import DeadlineExpired, InferenceFailed, InvalidImage
from service.group import Entry, Group
from tests.fake_clock import run
from tests.service.fake_batching import FOREVER, now


def test_results_come_in_the_requests_order_whichever_ends_first() -> None:
    async def main() -> None:
        group: Group[str] = Group(3, FOREVER)
        error = InvalidImage("not an image")
        group.set(2, "c")
        group.set(0, "a")
        before = group.done
        group.set(1, error)
        assert (before, group.done, group.over) == (False, True, True)
        assert await group.wait() == group.results() == ["a", error, "c"]

    run(main())


def test_it_ends_at_its_deadline_and_takes_its_entries_out_of_the_queue() -> None:
    async def main() -> None:
        group: Group[str] = Group(2, 5.0)
        queue = EntryQueue()
        queue.push(Entry(group, 0, "x"))
        Entry(group, 1, "being worked on")
        with pytest.raises(DeadlineExpired) as caught:
            await group.wait()
        assert caught.value.reason == "expired"
        assert now() == 5.0
        assert len(queue) == 0
        group.set(1, "too late")
        assert isinstance(group._future.exception(), DeadlineExpired)

    run(main())


def test_a_deadline_after_the_end_does_nothing() -> None:
    async def main() -> None:
        group: Group[str] = Group(1, 5.0)
        group.set(0, "a")
        await asyncio.sleep(9.0)
        assert group.results() == ["a"]

    run(main())


def test_a_caller_who_is_cancelled_leaves() -> None:
    async def main() -> None:
        group: Group[str] = Group(1, FOREVER)
        queue = EntryQueue()
        queue.push(Entry(group, 0, "x"))
        caller = asyncio.create_task(group.wait())
        await asyncio.sleep(1.0)
        caller.cancel()
        await asyncio.sleep(0)
        assert group.over
        assert len(queue) == 0

    run(main())


@pytest.mark.parametrize("how", ["set", "fail", "expire"])
def test_what_comes_in_the_instant_of_a_cancellation_is_of_no_effect(how: str) -> None:
    async def main() -> None:
        group: Group[str] = Group(1, 5.0)
        caller = asyncio.create_task(group.wait())
        await asyncio.sleep(1.0)
        caller.cancel()  # cancels the future now; the task learns of it when it runs next
        if how == "set":
            group.set(0, "a")
        elif how == "fail":
            group.fail(InferenceFailed("as arranged"))
        else:
            group._expire()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert group.over

    run(main())


def test_only_the_first_failure_counts_and_nobody_needs_to_ask_for_it() -> None:
    async def main() -> None:
        group: Group[str] = Group(2, FOREVER)
        group.fail(InferenceFailed("first"))
        group.fail(InferenceFailed("second"))
        group.set(0, "a")
        with pytest.raises(InferenceFailed, match="first"):
            group.results()

    run(main())


def test_cancelling_who_waits_until_it_is_done_does_not_end_it() -> None:
    async def main() -> None:
        group: Group[str] = Group(1, FOREVER)
        waiter = asyncio.create_task(group.until_done())
        await asyncio.sleep(1.0)
        waiter.cancel()
        await asyncio.sleep(0)
        assert not group.over
        group.set(0, "a")
        await group.until_done()
        assert group.results() == ["a"]

    run(main())
