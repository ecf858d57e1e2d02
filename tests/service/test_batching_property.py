"""Whatever comes, leaves or fails: every entry ends exactly once, with its own result or a fair error."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.admission import Admission, Load
from service.batching import DynamicBatcher, Take
from service.errors import DeadlineExpired, InferenceFailed, Overloaded, RequestError
from service.forecast import Forecast
from service.group import Entry, Group, Priority
from service.latency import LatencyTable
from tests.fake_clock import run
from tests.service.fake_batching import CPU_S, GPU_S, now

# Few different times, so that several things happen in the same instant.
TICKS_S = [0.0, 0.001, 0.005, 0.010, 0.011, 0.020, 0.040, 0.1]


class Caller(NamedTuple):
    """One request. `leaves_s` counts from its arrival; a stream's message waits at the door."""

    arrival_s: float
    images: int
    patience_s: float
    priority: Priority
    leaves_s: float | None
    streams: bool


class Server(NamedTuple):
    """How the batcher is set, and what its runs do: `pace` times as long as the table says."""

    table_s: dict[int, float]
    sizes: tuple[int, ...]
    max_queue_delay_ms: float
    copies_s: list[float]
    pace: float
    failing: set[int]
    one_short: set[int]


CALLERS = st.lists(
    st.builds(
        Caller,
        arrival_s=st.sampled_from(TICKS_S),
        images=st.integers(1, 4),
        patience_s=st.sampled_from([0.001, 0.010, 0.011, 0.030, 0.2, 10.0]),
        priority=st.sampled_from(Priority),
        leaves_s=st.one_of(st.none(), st.sampled_from(TICKS_S)),
        streams=st.booleans(),
    ),
    max_size=40,
)
SERVERS = st.builds(
    Server,
    table_s=st.sampled_from([CPU_S, GPU_S]),
    sizes=st.sampled_from([(1,), (1, 2), (1, 2, 4, 8), tuple(range(1, 9)), (4, 8)]),
    max_queue_delay_ms=st.sampled_from([0.0, 2.0, 50.0]),
    copies_s=st.lists(st.sampled_from([0.0, 0.001]), min_size=1, max_size=3),
    pace=st.sampled_from([0.1, 1.0, 3.0]),
    failing=st.sets(st.integers(0, 12), max_size=4),
    one_short=st.sets(st.integers(0, 12), max_size=2),
)


class Trial:
    """One run of everything: callers, door, batcher and instances."""

    def __init__(self, server: Server) -> None:
        self._server = server
        latency = LatencyTable(server.table_s, server.sizes)
        forecast = Forecast(latency, server.sizes[-1], len(server.copies_s))
        self._run_s = latency.warm_s
        self.admission = Admission(Load(40, 40), forecast)
        self.batcher: DynamicBatcher[int, int] = DynamicBatcher(
            [self._instance(copy_s) for copy_s in server.copies_s],
            batch_sizes=server.sizes,
            latency=latency,
            max_queue_delay_ms=server.max_queue_delay_ms,
            on_run=lambda images, at: forecast.ran(images, at, self.admission.images - images),
        )
        self.groups: dict[int, Group[int]] = {}  # by value
        self.copied: list[int] = []
        self.answered: set[int] = set()
        self.violations: list[str] = []
        self._runs = 0

    def _instance(self, copy_s: float):  # type: ignore[no-untyped-def] # the closure's type says it
        async def execute(take: Take[int]) -> Sequence[int]:
            await asyncio.sleep(copy_s)
            values = take()
            if not values:
                return []
            number, self._runs = self._runs, self._runs + 1
            self._look_at(values)
            await asyncio.sleep(self._run_s(len(values)) * self._server.pace)
            if number in self._server.failing:
                raise RuntimeError("as arranged")
            results = [-value for value in values]
            return results[1:] if number in self._server.one_short else results

        return execute

    def _look_at(self, values: Sequence[int]) -> None:
        if len(values) > self._server.sizes[-1]:
            self.violations.append(f"a batch of {len(values)}")
        for value in values:
            group = self.groups[value]
            if group.over:
                self.violations.append(f"{value} runs though nobody waits for it")
            if group.deadline < now() - 1e-6:
                self.violations.append(f"{value} runs after its deadline")
        self.copied.extend(values)

    async def call(self, caller: Caller, first_value: int) -> None:
        """One request, from its arrival to its end."""
        await asyncio.sleep(caller.arrival_s)
        work = self._request(caller, first_value)
        await (work if caller.leaves_s is None else asyncio.wait_for(work, caller.leaves_s))

    async def _request(self, caller: Caller, first_value: int) -> None:
        load, deadline = Load(caller.images, caller.images), now() + caller.patience_s
        if caller.streams:
            permit = await self.admission.admit_stream(load, deadline, caller.priority)
        else:
            permit = self.admission.admit(load, deadline, caller.priority)
        group: Group[int] = Group(caller.images, deadline, caller.priority)
        try:
            for index in range(caller.images):
                self.groups[first_value + index] = group
                self.batcher.put(Entry(group, index, first_value + index))
            results = await group.wait()
        finally:
            group.leave()
            permit.release()
        if now() > deadline + 1e-6:
            self.violations.append(f"{first_value} is answered after its deadline")
        for index, result in enumerate(results):
            self._check_result(first_value + index, result)

    def _check_result(self, value: int, result: int | RequestError) -> None:
        if result == -value:
            self.answered.add(value)
        elif not isinstance(result, InferenceFailed):
            self.violations.append(f"{value} ends with {result!r}")
        elif not (self._server.failing or self._server.one_short):
            self.violations.append(f"{value} fails for no reason")


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(callers=CALLERS, server=SERVERS)
def test_every_entry_ends_exactly_once_with_its_own_result(callers: list[Caller], server: Server) -> None:
    async def main() -> None:
        trial = Trial(server)
        task = trial.batcher.start()
        calls = [
            asyncio.create_task(trial.call(caller, 1 + 10 * number)) for number, caller in enumerate(callers)
        ]
        for caller, end in zip(callers, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            fair: list[type[BaseException]] = [DeadlineExpired]
            fair += [] if caller.streams else [Overloaded]
            fair += [] if caller.leaves_s is None else [TimeoutError]
            assert end is None or isinstance(end, tuple(fair)), end
        assert not task.done()  # nothing has stopped the batcher
        await trial.batcher.close()
        assert trial.violations == []
        assert len(trial.copied) == len(set(trial.copied))  # nothing runs twice
        assert trial.answered <= set(trial.copied)
        assert len(trial.batcher._queue) == 0
        assert all(group.over for group in trial.groups.values())
        assert (trial.admission.images, trial.admission._bytes) == (0, 0)
        assert trial.admission._patient_images == trial.admission._patient_bytes == 0

    run(main())
