"""The door: what is let in, refused or made to wait, on a fake clock."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.admission import Admission, Load
from service.errors import DeadlineExpired, InvalidRequest, Overloaded, Unavailable
from tests.fake_clock import run

FOREVER = 1e5


def images(count: int) -> Load:
    return Load(count, count)


def door(capacity: int = 10, size_bytes: int = 1000) -> tuple[Admission, list[int]]:
    """A door, and the depths that it reported. Each image takes 10 ms."""
    depths: list[int] = []
    return Admission(Load(capacity, size_bytes), lambda waiting: waiting / 100, depths.append), depths


def now() -> float:
    return asyncio.get_running_loop().time()


async def stay(admission: Admission, load: Load, deadline: float, seconds: float = 0.0) -> str:
    async with admission.admit_stream(load, deadline):
        await asyncio.sleep(seconds)
        return "was in"


def test_what_does_not_fit_is_refused_and_told_the_numbers_and_when_to_come_back() -> None:
    admission, depths = door()
    with admission.admit(images(8)):
        with (
            pytest.raises(
                Overloaded, match=r"room for 2 images and .* of 10 images .*has 3 images"
            ) as caught,
            admission.admit(images(3)),
        ):
            pass
        assert caught.value.retry_after_ms == pytest.approx(80)
        with admission.admit(images(2)):
            pass
    with admission.admit(images(10)):
        pass
    assert depths == [8, 10, 8, 0, 10, 0]


def test_bytes_count_as_images_do() -> None:
    admission, _ = door(capacity=10, size_bytes=1000)
    with (
        admission.admit(Load(1, 700)),
        pytest.raises(Overloaded, match="9 images and 300 bytes"),
        admission.admit(Load(1, 301)),
    ):
        pass


def test_what_can_never_fit_is_the_callers_mistake() -> None:
    async def main() -> None:
        admission, _ = door()
        with pytest.raises(InvalidRequest, match="11 images"), admission.admit(images(11)):
            pass
        with pytest.raises(InvalidRequest, match="6 images"):
            await stay(admission, images(6), FOREVER)
        with pytest.raises(InvalidRequest, match="501 bytes"):
            await stay(admission, Load(1, 501), FOREVER)

    run(main())


def test_the_room_is_free_again_when_a_request_fails() -> None:
    admission, depths = door()
    with pytest.raises(ZeroDivisionError), admission.admit(images(10)):
        raise ZeroDivisionError
    assert depths == [10, 0]


def test_a_closed_door_lets_nobody_in() -> None:
    async def main() -> None:
        admission, _ = door()
        admission.close()
        with pytest.raises(Unavailable), admission.admit(images(1)):
            pass
        with pytest.raises(Unavailable):
            await stay(admission, images(1), FOREVER)

    run(main())


def test_streams_wait_for_room_in_turn_and_leave_half_to_the_others() -> None:
    async def main() -> None:
        admission, _ = door()
        order: list[str] = []

        async def message(name: str, count: int) -> None:
            async with admission.admit_stream(images(count), FOREVER):
                order.append(name)
                await asyncio.sleep(1.0)

        async with asyncio.TaskGroup() as group:
            group.create_task(message("a", 4))
            await asyncio.sleep(0.1)
            group.create_task(message("b", 3))  # must wait for a
            await asyncio.sleep(0.1)
            group.create_task(message("c", 1))  # would fit, but b came first
            await asyncio.sleep(0.1)
            assert order == ["a"]
            with admission.admit(images(6)):
                pass
            await asyncio.sleep(1.0)
            assert order == ["a", "b", "c"]

    run(main())


def test_one_who_gives_up_its_turn_lets_the_next_in() -> None:
    async def main() -> None:
        admission, depths = door()
        async with admission.admit_stream(images(4), FOREVER):
            expires = asyncio.create_task(stay(admission, images(3), 1.0))
            leaves = asyncio.create_task(stay(admission, images(3), FOREVER))
            await asyncio.sleep(0.1)
            small = asyncio.create_task(stay(admission, images(1), FOREVER))
            await asyncio.sleep(0.1)
            leaves.cancel()
            with pytest.raises(DeadlineExpired, match="waited for room"):
                await expires
            assert now() == pytest.approx(1.0)
            assert await small == "was in"
        assert depths[-1] == 0

    run(main())


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_room_that_comes_in_the_instant_somebody_gives_up_is_not_lost(how: str) -> None:
    async def main() -> None:
        admission, depths = door()
        inside = admission.admit_stream(images(5), FOREVER)
        await inside.__aenter__()
        first = asyncio.create_task(stay(admission, images(5), 1.0 if how == "expired" else FOREVER))
        second = asyncio.create_task(stay(admission, images(5), FOREVER))
        await asyncio.sleep(0.1)
        if how == "cancelled":
            first.cancel()
        else:
            asyncio.get_running_loop().call_at(1.0, lambda: None)
            await asyncio.sleep(0.9)  # wakes at the very time at which the first one's turn expires
        await inside.__aexit__(None, None, None)
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else DeadlineExpired):
            await first
        assert await second == "was in"
        assert depths[-1] == 0

    run(main())


@settings(max_examples=200, deadline=None)
@given(
    callers=st.lists(
        st.tuples(
            st.booleans(),  # of a stream
            st.sampled_from([0.0, 0.01, 0.02, 0.03]),  # arrival: often the same instant
            st.integers(1, 4),  # images
            st.sampled_from([0.01, 0.02, 1.0]),  # deadline, from arrival
            st.sampled_from([0.0, 0.01, 0.02]),  # stays
            st.sampled_from([None, 0.0, 0.01, 0.02]),  # leaves after
        ),
        max_size=30,
    )
)
def test_nothing_is_let_in_beyond_the_capacity_and_everybody_ends(
    callers: list[tuple[bool, float, int, float, float, float | None]],
) -> None:
    async def main() -> None:
        admission, depths = door(capacity=8)
        inside = most = 0

        async def caller(stream: bool, arrival: float, count: int, patience: float, stays: float) -> None:
            nonlocal inside, most
            await asyncio.sleep(arrival)

            async def work() -> None:
                nonlocal inside, most
                inside += count
                most = max(most, inside)
                try:
                    await asyncio.sleep(stays)
                finally:
                    inside -= count

            if stream:
                async with admission.admit_stream(images(count), now() + patience):
                    await work()
            else:
                with admission.admit(images(count)):
                    await work()

        async def leaving(work: Callable[[], Awaitable[None]], after: float | None) -> None:
            await (work() if after is None else asyncio.wait_for(work(), after))

        tasks = [
            asyncio.create_task(leaving(lambda each=each: caller(*each[:5]), each[5]))  # type: ignore[misc] # bound early
            for each in callers
        ]
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, Overloaded | DeadlineExpired | TimeoutError), result
        assert most <= 8
        assert inside == 0
        assert not depths or depths[-1] == 0
        async with admission.admit_stream(images(4), now() + 1):  # nobody is left in front
            pass

    run(main())
