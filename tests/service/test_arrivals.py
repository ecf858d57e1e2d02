"""The turnstile for unread messages: who reads, who waits, and what counts, on a fake clock."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.arrivals import SLOW_AFTER_S, Arrival, Arrivals
from service.errors import DeadlineExpired, Overloaded
from tests.fake_clock import run

FOREVER = 1e5
LARGEST = 100


def turnstile(readers: int = 2, most_waiting: int = 100) -> Arrivals:
    """Room for so many messages of the largest size."""
    return Arrivals(readers * LARGEST, LARGEST, most_waiting)


async def place_in(arrivals: Arrivals, deadline: float = FOREVER) -> Arrival:
    return arrivals.enter() or await arrivals.wait(deadline)


async def taken(arrivals: Arrivals) -> Arrival:
    place = arrivals.enter()
    assert place is not None
    return place


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_message_counts_as_the_largest_until_it_is_read_and_as_itself_until_the_call_ends() -> None:
    async def main() -> None:
        arrivals = turnstile(2)
        first, second = await taken(arrivals), await taken(arrivals)
        assert arrivals.counted_bytes == 2 * LARGEST
        assert arrivals.enter() is None
        arrivals.arrived(first, 30)
        assert arrivals.counted_bytes == LARGEST + 30
        assert arrivals.enter() is None  # 30 are held: two of the largest don't fit beside them
        arrivals.leave(first)
        assert arrivals.enter() is not None
        arrivals.leave(second)  # it was never read
        assert arrivals.counted_bytes == LARGEST

    run(main())


def test_leaving_twice_counts_once() -> None:
    async def main() -> None:
        arrivals = turnstile(1)
        place = await taken(arrivals)
        arrivals.arrived(place, 30)
        arrivals.leave(place)
        arrivals.leave(place)
        assert arrivals.counted_bytes == 0

    run(main())


def test_small_messages_that_are_read_leave_room_for_others() -> None:
    async def main() -> None:
        arrivals = turnstile(2)
        for _ in range(100):
            arrivals.arrived(await taken(arrivals), 1)
        assert arrivals.counted_bytes == 100
        assert arrivals.enter() is not None

    run(main())


def test_turns_come_in_order_and_nobody_overtakes() -> None:
    async def main() -> None:
        arrivals, order = turnstile(1), list[str]()
        first = await taken(arrivals)

        async def call(name: str) -> None:
            place = await place_in(arrivals)
            order.append(name)
            arrivals.leave(place)

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(call(name))
            await asyncio.sleep(0.1)
            assert arrivals.waiting == 3
            assert order == []
            arrivals.leave(first)
            assert arrivals.enter() is None  # there is room, but a comes first
        assert order == ["a", "b", "c"]
        assert arrivals.counted_bytes == 0

    run(main())


def test_a_wait_ends_at_the_deadline() -> None:
    async def main() -> None:
        arrivals = turnstile(1)
        place = await taken(arrivals)
        arrivals.arrived(place, LARGEST)
        with pytest.raises(DeadlineExpired, match="room to read"):
            await arrivals.wait(3.0)
        assert now() == pytest.approx(3.0)
        assert arrivals.waiting == 0
        arrivals.leave(place)
        assert arrivals.enter() is not None

    run(main())


def test_more_than_may_wait_are_refused_and_told_when_to_come_back() -> None:
    async def main() -> None:
        arrivals = turnstile(1, most_waiting=2)
        arrivals.arrived(await taken(arrivals), LARGEST)
        waiting = [asyncio.create_task(arrivals.wait(1.0)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 calls wait") as caught:
            await arrivals.wait(1.0)
        assert caught.value.retry_after_ms > 0
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, DeadlineExpired)

    run(main())


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_turn_that_comes_in_the_instant_its_caller_gives_up_goes_to_the_next(how: str) -> None:
    async def main() -> None:
        arrivals = turnstile(1)
        first = await taken(arrivals)
        arrivals.arrived(first, LARGEST)
        leaves = asyncio.create_task(arrivals.wait(1.0 if how == "expired" else FOREVER))
        follows = asyncio.create_task(arrivals.wait(FOREVER))
        await asyncio.sleep(0.1)
        if how == "expired":
            asyncio.get_running_loop().call_at(1.0, arrivals.leave, first)  # in the deadline's own instant
            await asyncio.sleep(0.9)
        else:
            arrivals.leave(first)
            leaves.cancel()
        await asyncio.wait([leaves], timeout=1.0)
        if not leaves.cancelled() and leaves.exception() is None:
            arrivals.leave(leaves.result())
        assert (await asyncio.wait_for(follows, 1.0)).state == Arrival.FRESH
        assert arrivals.counted_bytes == LARGEST

    run(main())


def test_a_slow_read_counts_as_the_largest_seen_lately() -> None:
    async def main() -> None:
        arrivals = turnstile(2)
        for _ in range(1000):  # nothing larger than 10 has come for long
            place = await taken(arrivals)
            arrivals.arrived(place, 10)
            arrivals.leave(place)
        slow = [await taken(arrivals), await taken(arrivals)]
        started = now()
        third = await arrivals.wait(FOREVER)
        assert now() == pytest.approx(started + SLOW_AFTER_S)
        assert arrivals.counted_bytes == LARGEST + 20
        arrivals.arrived(third, 60)  # so may the slow ones be, as far as anybody knows
        assert arrivals.counted_bytes == 60 + 120
        for place in slow:
            arrivals.leave(place)
        assert arrivals.counted_bytes == 60

    run(main())


def test_a_burst_of_large_messages_after_small_ones_stays_inside_the_capacity() -> None:
    async def main() -> None:
        arrivals, in_memory, most = turnstile(4), 0, 0
        for _ in range(1000):
            place = await taken(arrivals)
            arrivals.arrived(place, 1)
            arrivals.leave(place)

        async def call() -> None:
            nonlocal in_memory, most
            place = await place_in(arrivals)
            in_memory += LARGEST
            most = max(most, in_memory)
            await asyncio.sleep(0.1)  # on its way
            arrivals.arrived(place, LARGEST)
            await asyncio.sleep(0.2)  # answered
            in_memory -= LARGEST
            arrivals.leave(place)

        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(call())
        assert most == 4 * LARGEST
        assert arrivals.counted_bytes == 0

    run(main())


def test_not_even_one_message_fits() -> None:
    with pytest.raises(ValueError, match="at least largest_bytes = 100"):
        Arrivals(99, 100, 1)


@settings(max_examples=200, deadline=None)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.1, 0.2, 0.6]),  # comes
            st.sampled_from([0.0, 0.1, 0.7]),  # its message is on its way
            st.integers(0, LARGEST),  # size
            st.sampled_from([0.0, 0.1]),  # answered after
            st.sampled_from([0.1, 0.6, 5.0]),  # deadline, from coming
            st.sampled_from([None, 0.0, 0.1, 0.6]),  # leaves after
        ),
        max_size=25,
    )
)
def test_what_is_held_stays_inside_and_everybody_ends(
    calls: list[tuple[float, float, int, float, float, float | None]],
) -> None:
    async def main() -> None:
        arrivals = turnstile(3)

        async def work(reads: float, size: int, answers: float, patience: float) -> None:
            place = await place_in(arrivals, now() + patience)
            try:
                await asyncio.sleep(reads)
                arrivals.arrived(place, size)
                await asyncio.sleep(answers)
            finally:
                arrivals.leave(place)

        async def call(
            comes: float, reads: float, size: int, answers: float, patience: float, leaves: float | None
        ) -> None:
            await asyncio.sleep(comes)
            task = work(reads, size, answers, patience)
            await (task if leaves is None else asyncio.wait_for(task, leaves))

        results = await asyncio.gather(*(call(*each) for each in calls), return_exceptions=True)
        for result in results:
            assert result is None or isinstance(result, DeadlineExpired | TimeoutError), result
        assert arrivals.counted_bytes == 0
        assert arrivals.waiting == 0
        places = [arrivals.enter() for _ in range(4)]
        assert [place is not None for place in places] == [True, True, True, False]

    run(main())
