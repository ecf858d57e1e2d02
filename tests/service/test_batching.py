"""The batcher's rules, each on a fake clock: no test waits, none depends on the machine's speed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.batching import DynamicBatcher, Run, Take
from service.errors import DeadlineExpired, InferenceFailed, InvalidRequest, RequestError, Unavailable
from service.group import Entry, Group, Priority
from service.latency import LatencyTable
from tests.fake_clock import hold_up, run
from tests.service.fake_batching import CPU_S, FOREVER, GPU_S, House, batching, now


async def until(time: float) -> None:
    await asyncio.sleep(time - now())


async def all_of(*asked: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*asked))


async def steady_arrivals(house: House, count: int, gap_s: float) -> None:
    """Teaches the batcher how often something comes, and lets it finish."""
    for value in range(count):
        house.put(value)
        await asyncio.sleep(gap_s)


# Three of four places filled are worth the run of four; five of eight are not.
UNEVEN_S = {1: 0.010, 2: 0.012, 4: 0.015, 8: 0.060}


@asynccontextmanager
async def at_work(
    execute: Run[int, int], batch_sizes: Sequence[int] = (1, 2, 3)
) -> AsyncIterator[DynamicBatcher[int, int]]:
    """A batcher whose one instance is `execute`; closed at the end."""
    batcher = DynamicBatcher(
        [execute], batch_sizes=batch_sizes, latency=LatencyTable(CPU_S, batch_sizes), max_queue_delay_ms=0
    )
    batcher.start()
    yield batcher
    await batcher.close()


class TestOrder:
    def test_the_earliest_deadline_goes_first_whenever_it_came(self) -> None:
        async def main() -> None:
            async with batching(batch_sizes=(1, 2)) as house:
                running = asyncio.create_task(house.ask(0))
                await asyncio.sleep(0.001)
                deadlines = {1: 3.0, 2: 1.0, 3: 4.0, 4: 2.0}
                waiting = [house.ask(value, deadline=at) for value, at in deadlines.items()]
                assert await all_of(running, *waiting) == [[0], [1], [4], [9], [16]]
                assert house.batches == [[0], [2, 4], [1, 3]]

        run(main())

    def test_interactive_goes_before_bulk_whatever_the_deadlines(self) -> None:
        async def main() -> None:
            async with batching(batch_sizes=(1, 2)) as house:
                running = asyncio.create_task(house.ask(0))
                await asyncio.sleep(0.001)
                bulk = house.ask(1, 2, deadline=1.0, priority=Priority.BULK)
                await asyncio.gather(running, bulk, house.ask(3, 4, deadline=9.0))
                assert house.batches == [[0], [3, 4], [1, 2]]

        run(main())

    @pytest.mark.parametrize("batch_size", [1, 8])
    def test_bulk_keeps_a_tenth_under_endless_interactive_work(self, batch_size: int) -> None:
        async def main() -> None:
            async with batching(batch_sizes=[batch_size], max_queue_delay_ms=0) as house:
                bulk = [house.put(-1, priority=Priority.BULK) for _ in range(100)]
                for _ in range(80 // batch_size):  # twice as much as can run
                    for _ in range(2 * batch_size):
                        house.put(1)
                    await asyncio.sleep(house.latency.warm_s(batch_size))
                ran = [value for batch in house.batches for value in batch]
                assert 0.08 <= ran.count(-1) / len(ran) <= 0.15
                assert sum(group.done for group in bulk) >= 6

        run(main())


class TestWhenABatchStarts:
    def test_an_idle_instance_starts_at_once(self) -> None:
        async def main() -> None:
            async with batching(max_queue_delay_ms=1000) as house:
                await until(1.0)
                await house.ask(1)
                assert house.starts == [1.0]
                assert house.waits_s == [0.0]

        run(main())

    def test_one_caller_at_a_time_never_waits(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, max_queue_delay_ms=1000) as house:
                for value in range(50):
                    await house.ask(value)
                assert house.starts == pytest.approx([0.010 * i for i in range(50)])

        run(main())

    def test_a_full_batch_starts_at_once_however_much_more_is_coming(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, max_queue_delay_ms=1000) as house:
                await steady_arrivals(house, 200, 0.0005)
                await until(5.0)
                started = len(house.batches)
                await house.ask(*range(8))
                assert house.starts[started:] == [5.0]

        run(main())

    def test_it_waits_where_arrivals_make_the_larger_batch_worth_it(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, max_queue_delay_ms=2) as house:
                await steady_arrivals(house, 200, 0.0005)
                await until(5.0)
                started = len(house.batches)
                groups = []
                for value in range(3):
                    groups.append(house.put(value))
                    await asyncio.sleep(0.0005)
                await asyncio.gather(*(group.wait() for group in groups))
                assert house.batches[started:] == [[0, 1, 2]]
                assert house.starts[started] > 5.001

        run(main())

    def test_it_does_not_wait_where_a_larger_run_costs_what_it_saves(self) -> None:
        async def main() -> None:
            async with batching(CPU_S, max_queue_delay_ms=1000) as house:
                await steady_arrivals(house, 200, 0.0005)
                await until(5.0)
                started = len(house.batches)
                await house.ask(1)
                assert house.starts[started:] == [5.0]

        run(main())

    def test_it_never_waits_longer_than_max_queue_delay_from_the_first_entry(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, max_queue_delay_ms=2, batch_sizes=(1, 2, 4, 8)) as house:
                await steady_arrivals(house, 200, 0.0009)
                await until(5.0)
                started = len(house.batches)
                for value in range(4):  # each would extend the wait, were it counted from the last
                    house.put(value)
                    await asyncio.sleep(0.0009)
                assert house.starts[started] == pytest.approx(5.002)
                assert house.batches[started] == [0, 1, 2]

        run(main())

    def test_it_never_waits_past_the_earliest_deadline_less_the_larger_run(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, max_queue_delay_ms=50) as house:
                await steady_arrivals(house, 200, 0.002)
                await until(5.0)
                started = len(house.batches)
                results = await house.ask(7, deadline=5.0 + 0.0115)
                assert results == [49]
                assert house.starts[started] == pytest.approx(5.0 + 0.0115 - house.latency(2))

        run(main())

    def test_it_stops_waiting_when_nothing_comes_any_more(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, max_queue_delay_ms=1000) as house:
                await steady_arrivals(house, 200, 0.0005)
                await until(5.0)
                started = len(house.batches)
                await house.ask(1)
                waited = house.starts[started] - 5.0
                assert 0 < waited < 2.5 * 0.0025  # some two gaps, the new one averaged in; not a second

        run(main())


class TestOpenBatches:
    def test_an_entry_joins_a_dispatched_batch_until_its_copy(self) -> None:
        async def main() -> None:
            async with batching(copies_s=[0.003]) as house:
                first = asyncio.create_task(house.ask(1))
                await until(0.002)
                second = asyncio.create_task(house.ask(2))
                await until(0.004)
                third = asyncio.create_task(house.ask(3))
                assert await all_of(first, second, third) == [[1], [4], [9]]
                assert house.batches == [[1, 2], [3]]
                assert house.waits_s[:2] == [0.0, 0.0]

        run(main())

    def test_it_joins_up_to_the_largest_batch(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, copies_s=[0.003], batch_sizes=(1, 2, 4)) as house:
                first = asyncio.create_task(house.ask(0))
                await until(0.001)
                await house.ask(1, 2, 3, 4, 5)
                assert await first == [0]
                assert [len(batch) for batch in house.batches] == [4, 2]

        run(main())

    def test_it_does_not_join_where_the_larger_run_would_make_a_mate_late(self) -> None:
        async def main() -> None:
            async with batching(copies_s=[0.001], batch_sizes=(1, 2)) as house:
                first = asyncio.create_task(house.ask(1, deadline=0.015))  # L(1) is 10 ms, L(2) 20
                await until(0.0005)
                second = asyncio.create_task(house.ask(2))
                assert await all_of(first, second) == [[1], [4]]
                assert house.batches == [[1], [2]]

        run(main())

    def test_one_who_left_before_the_copy_is_not_run_and_one_who_came_is(self) -> None:
        async def main() -> None:
            async with batching(copies_s=[0.003]) as house:
                leaves = asyncio.create_task(house.ask(1))
                await until(0.001)
                stays = asyncio.create_task(house.ask(2))
                await until(0.002)
                leaves.cancel()
                assert await stays == [4]
                assert house.batches == [[2]]

        run(main())

    def test_a_batch_that_everybody_left_is_no_run(self) -> None:
        async def main() -> None:
            async with batching(copies_s=[0.003]) as house:
                leaves = asyncio.create_task(house.ask(1))
                await until(0.001)
                leaves.cancel()
                await until(1.0)
                assert house.batches == []
                assert house.runs == []
                assert await house.ask(2) == [4]

        run(main())


class TestSizes:
    @pytest.mark.parametrize(("waiting", "sizes"), [(3, [3]), (4, [4]), (5, [4, 1]), (7, [4, 3]), (8, [8])])
    def test_filling_up_to_the_next_size_must_bring_more_than_it_costs(
        self, waiting: int, sizes: list[int]
    ) -> None:
        async def main() -> None:
            async with batching(UNEVEN_S) as house:
                first = house.put(0)
                await asyncio.sleep(0.001)
                await asyncio.gather(first.wait(), house.ask(*range(waiting)))
                assert [len(batch) for batch in house.batches] == [1, *sizes]

        run(main())

    def test_a_smaller_batch_is_chosen_where_it_answers_more_in_time(self) -> None:
        async def main() -> None:
            async with batching() as house:
                first = house.put(9)
                await asyncio.sleep(0.001)
                # At 10 ms: a run of all four is too long for the urgent two; the others can wait.
                urgent = house.put(1, 2, deadline=0.035)
                patient = house.put(3, 4, deadline=1.0)
                assert await all_of(first.wait(), urgent.wait(), patient.wait()) == [
                    [81], [1, 4], [9, 16],
                ]  # fmt: skip
                assert house.batches == [[9], [1, 2], [3, 4]]

        run(main())

    def test_the_most_urgent_is_given_up_where_a_larger_batch_without_it_answers_more(self) -> None:
        async def main() -> None:
            async with batching(GPU_S) as house:
                first = house.put(0)
                await asyncio.sleep(0.001)
                urgent = house.put(1, deadline=0.0201)  # could be saved alone: L(1) after 10 ms
                others = house.put(*range(2, 9), deadline=0.0215)
                assert await first.wait() == [0]
                assert await others.wait() == [value**2 for value in range(2, 9)]
                with pytest.raises(DeadlineExpired) as caught:
                    await urgent.wait()
                assert caught.value.reason in ("expired", "dropped_late")
                assert house.batches == [[0], [*range(2, 9)]]

        run(main())

    def test_with_several_instances_what_one_leaves_behind_another_takes(self) -> None:
        async def main() -> None:
            async with batching(UNEVEN_S, copies_s=[0.0, 0.0]) as house:
                await house.ask(*range(5))
                assert sorted(len(each.batches) for each in house.instances) == [1, 1]
                assert [each.starts for each in house.instances] == [[0.0], [0.0]]

        run(main())

    def test_what_a_smaller_batch_puts_back_an_idle_instance_takes(self) -> None:
        async def main() -> None:
            table_s = {1: 0.010, 2: 0.012, 4: 0.013}
            async with batching(table_s, max_queue_delay_ms=50, copies_s=[0.0, 0.0]) as house:
                await steady_arrivals(house, 200, 0.0005)
                await until(5.0)
                urgent = house.put(-1, deadline=5.0145)
                await until(5.0005)
                patient = house.put(-2)
                await until(5.001)
                hold_up(0.002)  # the one that waits for a third wakes too late to run both
                assert [await urgent.wait(), await patient.wait()] == [[1], [4]]
                assert sorted(each.batches[-1] for each in house.instances) == [[-2], [-1]]
                # The second waits for company as any does, but not for the first one's run to end.
                assert max(each.starts[-1] for each in house.instances) < 5.006

        run(main())


class TestDropping:
    def test_what_no_run_can_answer_in_time_is_dropped_as_soon_as_that_is_clear(self) -> None:
        async def main() -> None:
            async with batching() as house:
                first = house.put(0)
                await asyncio.sleep(0.001)
                doomed = house.put(1, deadline=0.015)  # its run would start at 10 ms and end at 20
                second = house.put(2)
                with pytest.raises(DeadlineExpired) as caught:
                    await doomed.wait()
                assert caught.value.reason == "dropped_late"
                assert now() == pytest.approx(0.010)
                assert await all_of(first.wait(), second.wait()) == [[0], [4]]
                assert house.batches == [[0], [2]]

        run(main())

    def test_one_with_nobody_beside_it_runs_all_the_same_and_puts_a_wrong_table_right(self) -> None:
        async def main() -> None:
            async with batching({1: 1.0}, batch_sizes=[1], run_s=lambda _: 0.001) as house:
                for value in range(40):  # by the table each takes a second; in truth a millisecond
                    assert await house.ask(value, deadline=now() + 0.1) == [value * value]
                assert house.latency(1) == pytest.approx(0.001)

        run(main())

    def test_of_several_that_are_late_by_the_table_one_is_run(self) -> None:
        async def main() -> None:
            async with batching({1: 1.0}, batch_sizes=(1, 2, 4), run_s=lambda _: 0.001) as house:
                groups = [house.put(value, deadline=0.1) for value in (1, 2, 3)]
                ends = await asyncio.gather(*(group.wait() for group in groups), return_exceptions=True)
                assert len(house.batches) == 1
                assert len(house.batches[0]) == 1
                assert sum(isinstance(end, list) for end in ends) == 1
                assert {end.reason for end in ends if isinstance(end, DeadlineExpired)} == {"dropped_late"}

        run(main())

    def test_one_whose_deadline_passes_in_the_queue_is_told_then_and_not_run(self) -> None:
        async def main() -> None:
            async with batching(run_s=lambda _: 1.0) as house:
                first = house.put(0)
                await asyncio.sleep(0.001)
                late, other = house.put(1, deadline=0.5), house.put(2)
                with pytest.raises(DeadlineExpired) as caught:
                    await late.wait()
                assert caught.value.reason == "expired"
                assert now() == pytest.approx(0.5)
                assert await all_of(first.wait(), other.wait()) == [[0], [4]]
                assert house.batches == [[0], [2]]

        run(main())

    def test_one_who_leaves_the_queue_is_not_run_and_its_mates_are(self) -> None:
        async def main() -> None:
            async with batching(run_s=lambda _: 1.0) as house:
                running = asyncio.create_task(house.ask(1))
                await asyncio.sleep(0.5)
                waiting = [asyncio.create_task(house.ask(value)) for value in (2, 3, 4)]
                await asyncio.sleep(0.1)
                waiting[1].cancel()
                assert await all_of(running, waiting[0], waiting[2]) == [[1], [4], [16]]
                assert house.batches == [[1], [2, 4]]

        run(main())

    def test_an_entry_that_comes_after_its_group_is_over_is_let_go(self) -> None:
        async def main() -> None:
            async with batching() as house:
                group: Group[int] = Group(1, FOREVER)
                entry = Entry(group, 0, 1)
                group.leave()
                house.batcher.put(entry)
                await asyncio.sleep(1.0)
                assert house.batches == []

        run(main())


class TestFailures:
    def test_a_failing_run_fails_its_own_batch_only_each_with_its_own_error(self) -> None:
        async def main() -> None:
            async with batching(batch_sizes=(1, 2)) as house:
                house.instances[0].fail_next = ValueError("out of memory")
                groups = [house.put(value) for value in range(4)]
                ends = [(await group.wait())[0] for group in groups]
                assert [type(end) for end in ends] == [InferenceFailed, InferenceFailed, int, int]
                assert "out of memory" in str(ends[0])
                assert ends[0] is not ends[1]
                assert [images for images, _ in house.runs] == [2, 2]
                assert [at for _, at in house.runs] == pytest.approx([0.020, 0.040])

        run(main())

    def test_a_run_that_fails_before_its_copy_fails_those_who_joined_too(self) -> None:
        async def main() -> None:
            async def execute(take: Take[int]) -> Sequence[int]:
                await asyncio.sleep(0.003)
                raise OSError("the device is gone")

            async with at_work(execute) as batcher:
                groups: list[Group[int]] = [Group(1, FOREVER) for _ in range(2)]
                for group in groups:
                    batcher.put(Entry(group, 0, 1))
                    await asyncio.sleep(0.001)
                for group in groups:
                    assert "the device is gone" in str((await group.wait())[0])

        run(main())

    def test_a_value_may_have_an_error_of_its_own(self) -> None:
        async def main() -> None:
            async def execute(take: Take[int]) -> Sequence[int | RequestError]:
                return [value if value else InvalidRequest("zero") for value in take()]

            async with at_work(execute) as batcher:
                group: Group[int] = Group(3, FOREVER)
                for index, value in enumerate((5, 0, 7)):
                    batcher.put(Entry(group, index, value))
                five, error, seven = await group.wait()
                assert (five, seven) == (5, 7)
                assert isinstance(error, InvalidRequest)

        run(main())

    def test_a_failing_run_says_nothing_about_how_long_runs_take(self) -> None:
        async def main() -> None:
            async with batching(run_s=lambda _: 0.0001) as house:
                for value in range(40):
                    house.instances[0].fail_next = ValueError("at once")
                    await house.ask(value)
                assert house.latency(1) == CPU_S[1]

        run(main())

    @pytest.mark.parametrize("results", [1, 3])
    def test_a_run_with_too_few_or_many_results_gives_nobody_anothers(self, results: int) -> None:
        async def main() -> None:
            async def execute(take: Take[int]) -> Sequence[int]:
                return [*take(), 0, 0][-results:]

            async with at_work(execute) as batcher:
                groups: list[Group[int]] = [Group(1, FOREVER) for _ in range(2)]
                for group in groups:
                    batcher.put(Entry(group, 0, 1))
                ends = [(await group.wait())[0] for group in groups]
                assert [str(end) for end in ends] == [f"the run gave {results} results for 2 images"] * 2
                assert all(isinstance(end, InferenceFailed) for end in ends)

        run(main())


class TestCancellation:
    def test_one_who_leaves_during_the_run_strands_nobody(self) -> None:
        async def main() -> None:
            async with batching(batch_sizes=(1, 2, 3), run_s=lambda _: 1.0) as house:
                callers = [asyncio.create_task(house.ask(value)) for value in range(3)]
                await asyncio.sleep(0.5)
                callers[0].cancel()
                assert await all_of(*callers[1:]) == [[1], [4]]
                assert await house.ask(5) == [25]

        run(main())

    @pytest.mark.parametrize("fails", [False, True])
    def test_one_cancelled_in_the_instant_in_which_its_run_ends_strands_nobody(self, fails: bool) -> None:
        async def main() -> None:
            async def execute(take: Take[int]) -> Sequence[int]:
                values = list(take())
                await asyncio.sleep(1.0)
                callers[0].cancel()  # its task runs, and leaves, only after the results are given out
                if fails:
                    raise ValueError("as arranged")
                return values

            async with at_work(execute, batch_sizes=(1, 2, 3)) as batcher:

                async def ask(value: int) -> list[int | RequestError]:
                    group: Group[int] = Group(1, FOREVER)
                    batcher.put(Entry(group, 0, value))
                    return await group.wait()

                callers = [asyncio.create_task(ask(value)) for value in range(3)]
                ends = await asyncio.gather(*callers, return_exceptions=True)
                assert isinstance(ends[0], asyncio.CancelledError)
                if fails:
                    assert [type(end[0]) for end in ends[1:] if isinstance(end, list)] == [
                        InferenceFailed
                    ] * 2
                else:
                    assert ends[1:] == [[1], [2]]
                assert isinstance((await ask(4))[0], InferenceFailed if fails else int)

        run(main())

    def test_one_cancelled_in_the_instant_in_which_it_is_dropped_strands_nobody(self) -> None:
        async def main() -> None:
            async with batching() as house:
                first = house.put(0)
                await asyncio.sleep(0.001)
                doomed = asyncio.create_task(house.ask(1, deadline=0.015))
                other = asyncio.create_task(house.ask(2))
                asyncio.get_running_loop().call_at(0.010, doomed.cancel)
                assert await all_of(first.wait(), other) == [[0], [4]]
                with pytest.raises((asyncio.CancelledError, DeadlineExpired)):
                    await doomed

        run(main())


class TestSeveralInstances:
    def test_they_run_side_by_side(self) -> None:
        async def main() -> None:
            async with batching(batch_sizes=(1, 2), copies_s=[0.0, 0.0]) as house:
                groups = [house.put(value) for value in range(6)]
                assert [await group.wait() for group in groups] == [[value**2] for value in range(6)]
                assert [each.batches for each in house.instances] in (
                    [[[0, 1], [4, 5]], [[2, 3]]],
                    [[[2, 3]], [[0, 1], [4, 5]]],
                )
                assert now() == pytest.approx(2 * CPU_S[2])

        run(main())

    def test_a_failing_one_does_not_stop_the_other(self) -> None:
        async def main() -> None:
            async with batching(batch_sizes=[1], copies_s=[0.0, 0.0]) as house:
                house.instances[0].fail_next = ValueError("as arranged")
                ends = [await group.wait() for group in [house.put(value) for value in range(1, 7)]]
                assert sum(isinstance(end[0], InferenceFailed) for end in ends) == 1
                assert all(len(each.batches) == 3 for each in house.instances)

        run(main())


class TestClosing:
    def test_it_finishes_what_is_queued_at_once_and_takes_nothing_more(self) -> None:
        async def main() -> None:
            async with batching(batch_sizes=(1, 2), run_s=lambda _: 1.0, max_queue_delay_ms=9e9) as house:
                queued = [house.put(value) for value in range(5)]
                await asyncio.sleep(0.5)
                closing = asyncio.create_task(house.batcher.close())
                await asyncio.sleep(0)
                with pytest.raises(Unavailable, match="draining"):
                    house.put(9)
                await closing
                assert [group.results() for group in queued] == [[0], [1], [4], [9], [16]]
                assert house.batches == [[0, 1], [2, 3], [4]]

        run(main())

    def test_it_ends_the_wait_for_a_fuller_batch(self) -> None:
        async def main() -> None:
            async with batching(GPU_S, max_queue_delay_ms=1000) as house:
                await steady_arrivals(house, 200, 0.002)
                await until(5.0)
                waiting = house.put(1)
                await asyncio.sleep(0.0001)
                assert waiting.entries[0].queue is not None
                await house.batcher.close()
                assert waiting.results() == [1]
                assert now() == pytest.approx(5.0101)

        run(main())

    def test_before_the_start_nothing_is_taken(self) -> None:
        async def main() -> None:
            batcher: DynamicBatcher[int, int] = DynamicBatcher(
                [], batch_sizes=[1], latency=LatencyTable(CPU_S, [1]), max_queue_delay_ms=0
            )
            group: Group[int] = Group(1, FOREVER)
            with pytest.raises(Unavailable):
                batcher.put(Entry(group, 0, 1))
            group.leave()
            await batcher.close()

        run(main())
