"""The batcher's rules, each on a fake clock: no test waits, none depends on the machine's speed."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching import DynamicBatcher
from service.errors import DeadlineExpired, InferenceFailed, Unavailable
from tests.fake_clock import run

FOREVER = 1e5


class Runs:
    """The function that the batcher calls: takes `run_s`, and answers each value with its square."""

    def __init__(self, run_s: float = 0.010) -> None:
        self.run_s = run_s
        self.batches: list[list[int]] = []
        self.starts: list[float] = []
        self.fail_next: Exception | None = None

    async def __call__(self, values: Sequence[int]) -> list[int]:
        self.batches.append(list(values))
        self.starts.append(now())
        await asyncio.sleep(self.run_s)
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        return [value * value for value in values]


def now() -> float:
    return asyncio.get_running_loop().time()


def start(
    runs: Runs,
    *,
    max_batch_size: int = 4,
    max_queue_delay_ms: float = 5,
    expected_run_s: float = 0.010,
) -> tuple[DynamicBatcher[int, int], list[float]]:
    """A batcher at work, and how long each value waited for its run."""
    waits: list[float] = []
    batcher = DynamicBatcher(
        runs,
        max_batch_size=max_batch_size,
        max_queue_delay_ms=max_queue_delay_ms,
        expected_run_s=expected_run_s,
        on_wait=waits.append,
    )
    batcher.start()
    return batcher, waits


async def submit_at(
    batcher: DynamicBatcher[int, int], when: float, value: int, deadline: float = FOREVER
) -> int:
    await asyncio.sleep(when - now())
    return await batcher.submit(value, deadline)


def test_a_full_batch_runs_at_once() -> None:
    async def main() -> None:
        runs = Runs()
        batcher, _ = start(runs)
        assert await asyncio.gather(*(batcher.submit(i, FOREVER) for i in range(4))) == [0, 1, 4, 9]
        assert runs.batches == [[0, 1, 2, 3]]
        assert runs.starts == [0.0]
        await batcher.close()

    run(main())


def test_a_batch_that_is_not_full_runs_when_its_first_entry_has_waited() -> None:
    async def main() -> None:
        runs = Runs()
        batcher, waits = start(runs)
        await asyncio.gather(
            submit_at(batcher, 1.0, 1), submit_at(batcher, 1.003, 2), submit_at(batcher, 1.006, 3)
        )
        assert runs.batches == [[1, 2], [3]]
        assert runs.starts == pytest.approx([1.005, 1.015])  # the third waits for the run, not for its window
        assert waits == pytest.approx([0.005, 0.002, 0.009])
        await batcher.close()

    run(main())


def test_entries_that_arrive_during_a_run_go_together_after_it() -> None:
    async def main() -> None:
        runs = Runs(run_s=0.1)
        batcher, _ = start(runs, max_queue_delay_ms=0)
        await asyncio.gather(*(submit_at(batcher, i / 100, i) for i in range(6)))
        assert runs.batches == [[0], [1, 2, 3, 4], [5]]
        assert runs.starts == pytest.approx([0.0, 0.1, 0.2])
        await batcher.close()

    run(main())


def test_nobody_waits_past_what_a_deadline_allows() -> None:
    async def main() -> None:
        runs = Runs(run_s=0.040)
        batcher, _ = start(runs, max_queue_delay_ms=1000, expected_run_s=0.040)
        assert await batcher.submit(3, deadline=0.100) == 9
        assert runs.starts == pytest.approx([0.050])  # 0.100 less the run and a quarter
        await batcher.close()

    run(main())


def test_the_expected_run_follows_what_runs_really_take() -> None:
    async def main() -> None:
        runs = Runs(run_s=0.300)
        batcher, _ = start(runs, max_queue_delay_ms=0, expected_run_s=0.001)
        await batcher.submit(1, FOREVER)
        batcher._max_queue_delay_s = 10
        begun = now()
        assert await batcher.submit(2, begun + 1.0) == 4
        assert runs.starts[1] == pytest.approx(begun + 1.0 - 1.25 * 0.3)
        await batcher.close()

    run(main())


def test_an_entry_whose_deadline_passes_in_the_queue_is_never_run() -> None:
    async def main() -> None:
        runs = Runs(run_s=1.0)
        batcher, _ = start(runs, max_batch_size=1)
        first = asyncio.create_task(batcher.submit(1, FOREVER))
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineExpired, match="deadline passed"):
            await batcher.submit(2, deadline=0.5)
        assert now() == pytest.approx(0.5)  # told at its deadline, not when its turn came
        assert await first == 1
        assert await batcher.submit(3, FOREVER) == 9
        assert runs.batches == [[1], [3]]
        await batcher.close()

    run(main())


def test_a_caller_who_leaves_is_not_run_and_its_mates_are() -> None:
    async def main() -> None:
        runs = Runs(run_s=1.0)
        batcher, _ = start(runs)
        running = asyncio.create_task(batcher.submit(1, FOREVER))
        await asyncio.sleep(0.5)
        waiting = [asyncio.create_task(batcher.submit(i, FOREVER)) for i in (2, 3, 4)]
        await asyncio.sleep(0.1)
        waiting[1].cancel()
        assert [await running, await waiting[0], await waiting[2]] == [1, 4, 16]
        assert runs.batches == [[1], [2, 4]]
        await batcher.close()

    run(main())


def test_a_caller_who_leaves_during_the_run_does_not_strand_its_mates() -> None:
    async def main() -> None:
        runs = Runs(run_s=1.0)
        batcher, _ = start(runs, max_batch_size=3)
        callers = [asyncio.create_task(batcher.submit(i, FOREVER)) for i in range(3)]
        await asyncio.sleep(0.5)
        callers[0].cancel()
        assert await asyncio.gather(*callers[1:]) == [1, 4]
        assert await batcher.submit(5, FOREVER) == 25
        await batcher.close()

    run(main())


def test_a_run_that_fails_fails_its_own_batch_only() -> None:
    async def main() -> None:
        runs = Runs()
        batcher, _ = start(runs, max_batch_size=2)
        runs.fail_next = ValueError("out of memory")
        results = await asyncio.gather(
            *(batcher.submit(i, FOREVER) for i in range(4)), return_exceptions=True
        )
        assert [type(result) for result in results] == [InferenceFailed, InferenceFailed, int, int]
        assert "out of memory" in str(results[0])
        assert results[0] is not results[1]
        await batcher.close()

    run(main())


def test_a_run_with_too_few_results_gives_nobody_anothers() -> None:
    async def main() -> None:
        async def one_short(values: Sequence[int]) -> list[int]:
            return [value * value for value in values][1:]

        batcher = DynamicBatcher(
            one_short,
            max_batch_size=2,
            max_queue_delay_ms=0,
            expected_run_s=0,
            on_wait=lambda _: None,
        )
        batcher.start()
        results = await asyncio.gather(*(batcher.submit(i, FOREVER) for i in (2, 3)), return_exceptions=True)
        assert [str(result) for result in results] == ["the run gave 1 results for 2 images"] * 2
        await batcher.close()

    run(main())


def test_closing_finishes_what_is_queued_and_takes_nothing_more() -> None:
    async def main() -> None:
        runs = Runs(run_s=1.0)
        batcher, _ = start(runs, max_batch_size=2, max_queue_delay_ms=10_000)
        queued = [asyncio.create_task(batcher.submit(i, FOREVER)) for i in range(5)]
        await asyncio.sleep(0.5)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await batcher.submit(9, FOREVER)
        await closing
        assert await asyncio.gather(*queued) == [0, 1, 4, 9, 16]
        assert runs.batches == [[0, 1], [2, 3], [4]]

    run(main())


@settings(max_examples=150, deadline=None)
@given(
    callers=st.lists(
        st.tuples(
            st.floats(0, 0.2),  # arrival
            st.sampled_from([0.01, 0.05, 0.2, 10.0]),  # deadline, from arrival
            st.one_of(st.none(), st.floats(0, 0.1)),  # leaves after
        ),
        max_size=40,
    ),
    max_batch_size=st.integers(1, 8),
    max_queue_delay_ms=st.sampled_from([0.0, 2.0, 50.0]),
    run_s=st.sampled_from([0.001, 0.02, 0.1]),
    failing=st.sets(st.integers(0, 10)),
)
def test_every_entry_ends_exactly_once_with_its_own_result(
    callers: list[tuple[float, float, float | None]],
    max_batch_size: int,
    max_queue_delay_ms: float,
    run_s: float,
    failing: set[int],
) -> None:
    async def main() -> None:
        seen: list[int] = []
        count = 0

        async def execute(values: Sequence[int]) -> list[int]:
            nonlocal count
            number, count = count, count + 1
            assert 1 <= len(values) <= max_batch_size
            seen.extend(values)
            await asyncio.sleep(run_s)
            if number in failing:
                raise RuntimeError("as arranged")
            return [-value for value in values]

        batcher = DynamicBatcher(
            execute,
            max_batch_size=max_batch_size,
            max_queue_delay_ms=max_queue_delay_ms,
            expected_run_s=run_s,
            on_wait=lambda _: None,
        )
        batcher.start()

        async def caller(value: int, arrival: float, patience: float, leaves: float | None) -> int:
            await asyncio.sleep(arrival)
            work = batcher.submit(value, now() + patience)
            return await (work if leaves is None else asyncio.wait_for(work, leaves))

        tasks = [asyncio.create_task(caller(i, *each)) for i, each in enumerate(callers)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for value, result in enumerate(results):
            assert result == -value or isinstance(result, DeadlineExpired | InferenceFailed | TimeoutError), (
                result
            )
        assert len(seen) == len(set(seen))  # nothing runs twice
        answered = {value for value, result in enumerate(results) if isinstance(result, int)}
        assert answered <= set(seen)
        await batcher.close()
        assert not batcher._queue

    run(main())
