"""The batcher's rules, each on a fake clock: who runs with whom, and when."""

import asyncio

import pytest

from service.errors import DeadlineExpired
from service.group import Priority
from tests.fake_clock import hold_up, run
from tests.service.fake_batching import CPU_S, GPU_S, UNEVEN_S, all_of, batching, steady_arrivals, until


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
