"""The door: what is let in, refused or made to wait, on a fake clock."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.admission import Admission, Load, Permit
from service.errors import DeadlineExpired, InvalidRequest, Overloaded, Unavailable
from service.forecast import Forecast
from service.group import Priority
from service.latency import LatencyTable
from tests.fake_clock import run
from tests.service.fake_batching import FOREVER, now

INTERACTIVE, BULK = Priority


def images(count: int) -> Load:
    return Load(count, count)


def door(capacity: int = 10, size_bytes: int = 1000, image_s: float = 0.010) -> Admission:
    """Each image takes 10 ms, one after the other."""
    return Admission(Load(capacity, size_bytes), Forecast(LatencyTable({1: image_s}, [1]), 1, 1))


async def stay(admission: Admission, load: Load, deadline: float, seconds: float = 0.0) -> str:
    permit = await admission.admit_stream(load, deadline, INTERACTIVE)
    try:
        await asyncio.sleep(seconds)
    finally:
        permit.release()
    return "was in"


class TestRoom:
    def test_what_does_not_fit_is_refused_and_told_the_numbers_and_when_to_come_back(self) -> None:
        async def main() -> None:
            admission = door()
            eight = admission.admit(images(8), FOREVER)
            with pytest.raises(
                Overloaded, match=r"room for 2 images and .* of 10 images .*has 3 images"
            ) as caught:
                admission.admit(images(3), FOREVER)
            assert caught.value.reason == "full"
            assert caught.value.retry_after_ms == pytest.approx(80)
            two = admission.admit(images(2), FOREVER)
            assert admission.images == 10
            eight.release()
            two.release()
            admission.admit(images(10), FOREVER).release()
            assert admission.images == 0

        run(main())

    def test_bytes_count_as_images_do(self) -> None:
        async def main() -> None:
            admission = door(capacity=10, size_bytes=1000)
            permit = admission.admit(Load(1, 700), FOREVER)
            with pytest.raises(Overloaded, match="9 images and 300 bytes"):
                admission.admit(Load(1, 301), FOREVER)
            admission.admit(Load(1, 300), FOREVER).release()
            permit.release()
            admission.admit(Load(1, 1000), FOREVER).release()

        run(main())

    def test_what_can_never_fit_is_the_callers_mistake(self) -> None:
        async def main() -> None:
            admission = door()
            with pytest.raises(InvalidRequest, match="11 images"):
                admission.admit(images(11), FOREVER)
            with pytest.raises(InvalidRequest, match="6 images"):
                admission.admit(images(6), FOREVER, BULK)
            with pytest.raises(InvalidRequest, match="6 images"):
                await stay(admission, images(6), FOREVER)
            with pytest.raises(InvalidRequest, match="501 bytes"):
                await stay(admission, Load(1, 501), FOREVER)

        run(main())

    def test_bulk_and_streams_together_get_half(self) -> None:
        async def main() -> None:
            admission = door()
            bulk = admission.admit(images(3), FOREVER, BULK)
            message = admission.try_stream(images(2), FOREVER, INTERACTIVE)
            assert message is not None
            with pytest.raises(Overloaded, match=r"room for 0 images and .* of 5 images"):
                admission.admit(images(1), FOREVER, BULK)
            assert admission.try_stream(images(1), FOREVER, INTERACTIVE) is None
            unary = admission.admit(images(5), FOREVER)
            for permit in (bulk, message, unary):
                permit.release()
            assert admission.images == 0

        run(main())

    def test_interactive_work_may_fill_the_half_of_the_patient(self) -> None:
        async def main() -> None:
            admission = door()
            unary = admission.admit(images(9), FOREVER)
            with pytest.raises(Overloaded, match="room for 1 images"):
                admission.admit(images(2), FOREVER, BULK)
            unary.release()

        run(main())

    def test_a_closed_door_lets_nobody_in(self) -> None:
        async def main() -> None:
            admission = door()
            admission.close()
            with pytest.raises(Unavailable, match="draining"):
                admission.admit(images(1), FOREVER)
            with pytest.raises(Unavailable, match="draining"):
                await stay(admission, images(1), FOREVER)

        run(main())

    def test_a_deadline_in_the_past_is_expired_not_refused(self) -> None:
        async def main() -> None:
            admission = door()
            await asyncio.sleep(1.0)
            with pytest.raises(DeadlineExpired):
                admission.admit(images(1), 0.9)
            with pytest.raises(DeadlineExpired):
                await stay(admission, images(1), 1.0)

        run(main())


class TestPrediction:
    def test_who_would_be_answered_too_late_is_refused_at_once_and_told_when_to_come_back(self) -> None:
        async def main() -> None:
            admission = door()
            for _ in range(5):  # the fifth is answered after 50 ms
                admission.admit(images(1), 0.0501)
            with pytest.raises(Overloaded, match="5 images that are in leave no time for 1 more") as caught:
                admission.admit(images(1), 0.0501)
            assert caught.value.reason == "predicted_late"
            assert now() == 0.0
            admission.admit(images(1), 0.0601)

        run(main())

    def test_it_says_by_how_much_it_would_be_late(self) -> None:
        async def main() -> None:
            admission = door()
            admission.admit(images(5), 0.04)
            with pytest.raises(Overloaded) as caught:
                admission.admit(images(1), 0.05)
            assert caught.value.retry_after_ms == pytest.approx(10)

        run(main())

    def test_an_empty_house_refuses_nobody_however_wrong_the_table(self) -> None:
        async def main() -> None:
            admission = door(image_s=60.0)
            permit = admission.admit(images(10), 0.001)
            permit.release()
            admission.admit(images(1), 0.001).release()

        run(main())

    def test_a_tight_deadline_is_let_in_where_only_later_ones_are_before_it(self) -> None:
        async def main() -> None:
            admission = door()
            admission.admit(images(8), 9.0)
            admission.admit(images(1), 0.020)
            with pytest.raises(Overloaded):  # now one with an earlier deadline is in
                admission.admit(images(1), 0.021)

        run(main())

    def test_bulk_work_is_not_before_interactive_work_whatever_its_deadline(self) -> None:
        async def main() -> None:
            admission = door()
            admission.admit(images(5), 0.051, BULK)
            admission.admit(images(1), 0.052)

        run(main())

    def test_interactive_work_is_before_bulk_work_whatever_its_deadline(self) -> None:
        async def main() -> None:
            admission = door(capacity=40)
            admission.admit(images(20), 9.0)
            admission.admit(images(5), 9.0, BULK)
            with pytest.raises(Overloaded) as caught:
                admission.admit(images(1), 0.09, BULK)
            assert caught.value.reason == "predicted_late"

        run(main())

    def test_bulk_work_counts_on_its_share(self) -> None:
        async def main() -> None:
            admission = door(capacity=400, size_bytes=10_000)
            admission.admit(images(200), 9.0)
            admission.admit(images(2), 0.21, BULK)
            # Behind all 202 it would be answered after 2.03 s; with a tenth of the places after 0.3 s.
            admission.admit(images(1), 0.31, BULK)
            with pytest.raises(Overloaded):
                admission.admit(images(1), 0.29, BULK)

        run(main())

    def test_check_room_is_as_strict_as_letting_one_in(self) -> None:
        async def main() -> None:
            admission = door()
            admission.check_room(0.001)
            admission.admit(images(5), 0.04)
            with pytest.raises(Overloaded) as caught:
                admission.check_room(0.05)
            assert caught.value.reason == "predicted_late"
            admission.admit(images(5), FOREVER)
            with pytest.raises(Overloaded) as caught:
                admission.check_room(FOREVER)
            assert caught.value.reason == "full"
            assert admission.images == 10

        run(main())

    def test_a_stream_is_never_refused_for_being_late(self) -> None:
        async def main() -> None:
            admission = door()
            admission.admit(images(9), 9.0)
            permit = admission.try_stream(images(1), 0.001, INTERACTIVE)
            assert permit is not None
            permit.release()

        run(main())


class TestStreams:
    def test_they_wait_for_room_in_turn_and_leave_half_to_the_others(self) -> None:
        async def main() -> None:
            admission = door()
            order: list[str] = []

            async def message(name: str, count: int) -> None:
                permit = await admission.admit_stream(images(count), FOREVER, INTERACTIVE)
                order.append(name)
                await asyncio.sleep(1.0)
                permit.release()

            async with asyncio.TaskGroup() as group:
                group.create_task(message("a", 4))
                await asyncio.sleep(0.1)
                group.create_task(message("b", 3))  # must wait for a
                await asyncio.sleep(0.1)
                group.create_task(message("c", 1))  # would fit, but b came first
                await asyncio.sleep(0.1)
                assert order == ["a"]
                admission.admit(images(6), FOREVER).release()
                await asyncio.sleep(1.0)
                assert order == ["a", "b", "c"]
            assert admission.images == 0

        run(main())

    def test_one_who_gives_up_its_turn_lets_the_next_in(self) -> None:
        async def main() -> None:
            admission = door()
            inside = await admission.admit_stream(images(4), FOREVER, INTERACTIVE)
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
            inside.release()
            assert admission.images == 0

        run(main())

    @pytest.mark.parametrize("how", ["cancelled", "expired"])
    def test_room_that_comes_in_the_instant_somebody_gives_up_is_not_lost(self, how: str) -> None:
        async def main() -> None:
            admission = door()
            inside = await admission.admit_stream(images(5), FOREVER, INTERACTIVE)
            first = asyncio.create_task(stay(admission, images(5), 1.0 if how == "expired" else FOREVER))
            second = asyncio.create_task(stay(admission, images(5), FOREVER))
            await asyncio.sleep(0.1)
            if how == "cancelled":
                first.cancel()
            else:
                await asyncio.sleep(0.9)  # wakes at the very time at which the first one's turn expires
            inside.release()
            with pytest.raises(asyncio.CancelledError if how == "cancelled" else DeadlineExpired):
                await first
            assert await second == "was in"
            assert admission.images == 0

        run(main())

    def test_one_cancelled_after_its_turn_was_given_gives_it_back(self) -> None:
        async def main() -> None:
            admission = door()
            inside = await admission.admit_stream(images(5), FOREVER, INTERACTIVE)
            first = asyncio.create_task(stay(admission, images(5), FOREVER))
            second = asyncio.create_task(stay(admission, images(5), FOREVER))
            await asyncio.sleep(0.1)
            inside.release()
            first.cancel()
            assert await second == "was in"
            assert first.cancelled()
            assert admission.images == 0

        run(main())


Caller = tuple[str, float, int, float, float, float | None]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    callers=st.lists(
        st.tuples(
            st.sampled_from(["unary", "bulk", "stream"]),
            st.sampled_from([0.0, 0.01, 0.02, 0.03]),  # arrival: often the same instant
            st.integers(1, 4),  # images
            st.sampled_from([0.01, 0.02, 1.0]),  # deadline, from arrival
            st.sampled_from([0.0, 0.01, 0.02]),  # stays
            st.sampled_from([None, 0.0, 0.01, 0.02]),  # leaves after
        ),
        max_size=30,
    )
)
def test_nothing_is_let_in_beyond_the_capacity_and_everybody_ends(callers: list[Caller]) -> None:
    async def main() -> None:
        admission = door(capacity=8)
        inside = {"unary": 0, "bulk": 0, "stream": 0}

        async def let_in(kind: str, count: int, deadline: float) -> Permit:
            if kind == "stream":
                return await admission.admit_stream(images(count), deadline, INTERACTIVE)
            return admission.admit(images(count), deadline, BULK if kind == "bulk" else INTERACTIVE)

        async def caller(kind: str, arrival: float, count: int, patience: float, stays: float) -> None:
            await asyncio.sleep(arrival)
            permit = await let_in(kind, count, now() + patience)
            inside[kind] += count
            try:
                assert sum(inside.values()) <= 8
                assert inside["bulk"] + inside["stream"] <= 4
                await asyncio.sleep(stays)
            finally:
                inside[kind] -= count
                permit.release()

        async def leaving(work: Callable[[], Awaitable[None]], after: float | None) -> None:
            await (work() if after is None else asyncio.wait_for(work(), after))

        tasks = [
            asyncio.create_task(leaving(lambda each=each: caller(*each[:5]), each[5]))  # type: ignore[misc] # bound early
            for each in callers
        ]
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, Overloaded | DeadlineExpired | TimeoutError), result
        assert sum(inside.values()) == admission.images == 0
        # Nobody is left in front.
        permit = await admission.admit_stream(images(4), now() + 1, INTERACTIVE)
        permit.release()
        admission.admit(images(8), now() + 1).release()

    run(main())
