"""The batcher's rules, each on a fake clock: entries that are late or left, runs that fail, and the end."""

import asyncio
from collections.abc import Sequence

import pytest

from service.batching import DynamicBatcher, Take
from service.errors import DeadlineExpired, InferenceFailed, InvalidRequest, RequestError, Unavailable
from service.group import Entry, Group
from service.latency import LatencyTable
from tests.fake_clock import run
from tests.service.fake_batching import (
    CPU_S,
    FOREVER,
    GPU_S,
    all_of,
    at_work,
    batching,
    now,
    steady_arrivals,
    until,
)


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

    def test_a_request_of_several_runs_whole_then_or_none_of_it_would_be_answered(self) -> None:
        async def main() -> None:
            async with batching({1: 1.0}, batch_sizes=(1, 2, 4), run_s=lambda _: 0.001) as house:
                for value in range(40):
                    assert await house.ask(value, 2, 3, deadline=now() + 0.1) == [value * value, 4, 9]
                assert house.latency(4) < 0.1

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


class TestPreparing:
    def test_others_join_while_values_are_prepared_and_who_leaves_is_not_run(self) -> None:
        async def main() -> None:
            groups: dict[int, Group[int]] = {}
            batches: list[list[int]] = []
            prepared: list[int] = []

            async def execute(take: Take[int]) -> Sequence[int]:
                def prepare(value: int) -> int:
                    prepared.append(value)
                    if value == 1:  # two more come, and one who was there before is gone
                        groups[2].leave()
                        for late in (3, 4, 5):
                            put(late)
                        groups[4].leave()
                    return 10 * value

                batches.append(take(prepare))
                return batches[-1]

            async with at_work(execute, batch_sizes=(1, 2, 3, 4)) as batcher:

                def put(value: int) -> None:
                    groups[value] = Group(1, FOREVER)
                    batcher.put(Entry(groups[value], 0, value))

                for value in (1, 2):
                    put(value)
                assert await all_of(*(groups[value].wait() for value in (1,))) == [[10]]
                assert await all_of(*(groups[value].wait() for value in (3, 5))) == [[30], [50]]
            # The batch of four was full with 4, who left only then; 5 ran alone.
            assert batches == [[10, 30], [50]]
            assert prepared == [1, 3, 5]

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

    def test_nor_does_one_with_values_that_could_not_be_prepared(self) -> None:
        async def main() -> None:
            async def execute(take: Take[int]) -> Sequence[int | RequestError]:
                taken = take(lambda value: value or InvalidRequest("broken"))
                await asyncio.sleep(1.0)  # most of it for those that are broken
                return taken

            async with at_work(execute, batch_sizes=(1, 2, 4)) as batcher:
                for _ in range(40):
                    group: Group[int] = Group(4, FOREVER)
                    batcher.put(*(Entry(group, index, value) for index, value in enumerate((0, 0, 0, 5))))
                    assert (await group.wait())[3] == 5
                assert batcher._latency(1) == CPU_S[1]
                assert batcher._latency(4) == CPU_S[4]

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
