"""What arrives, how long a run takes, and how it all ended: the same for every policy."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from service.latency import LatencyTable

# A run takes up to so much longer than the table says, evenly distributed.
JITTER = 0.1
QUEUE_CAPACITY = 1024


@dataclass(frozen=True)
class Machine:
    """A device, and how patient its callers are.

    Attributes:
        name: as the plot calls it.
        table_s: batch size → seconds.
        batch_sizes: what really runs, ascending; a batch between two is padded.
        patience_s: callers give up after a time evenly distributed between these.
        max_queue_delay_ms: the window of every policy that has one.
        seconds: of arrivals in one trial.
    """

    name: str
    table_s: dict[int, float]
    batch_sizes: tuple[int, ...]
    patience_s: tuple[float, float]
    max_queue_delay_ms: float
    seconds: float

    @property
    def largest(self) -> int:
        """Images in a batch at most."""
        return self.batch_sizes[-1]

    def capacity_per_s(self) -> float:
        """Images per second where every batch is full."""
        return self.largest / (self.table_s[self.largest] * (1 + JITTER / 2))

    def run_times(self, seed: int) -> Callable[[int], float]:
        """Seconds that a run of so many takes; the n-th run's jitter is the same for every policy."""
        table, rng = LatencyTable(self.table_s, self.batch_sizes), random.Random(seed)  # noqa: S311 - a simulation's
        return lambda size: table.warm_s(size) * rng.uniform(1, 1 + JITTER)


@dataclass(frozen=True)
class Request:
    """One image; its caller leaves at `deadline`. Both in seconds from the start."""

    arrival: float
    deadline: float


@dataclass
class Outcome:
    """How a trial ended.

    Attributes:
        offered: requests that came.
        answered_s: how long each waited that was answered before its caller left.
        refused: told at once that there is no room or time.
        wasted: images that were run though their caller had left, or left before the end.
    """

    offered: int
    answered_s: list[float] = field(default_factory=list)
    refused: int = 0
    wasted: int = 0

    def p99_s(self) -> float:
        """Of those answered; not a number where nobody was."""
        ordered = sorted(self.answered_s)
        return ordered[int(0.99 * (len(ordered) - 1))] if ordered else float("nan")


def poisson(machine: Machine, load: float, seed: int) -> list[Request]:
    """Arrivals without memory, at `load` times the capacity."""
    rng = random.Random(seed)  # noqa: S311 - a simulation's
    return list(_requests(machine, load * machine.capacity_per_s(), rng, 0.0, machine.seconds))


def bursty(machine: Machine, load: float, seed: int) -> list[Request]:
    """On and off, for exponential times of a mean of two deadlines each; twice the mean rate while on."""
    rng = random.Random(seed)  # noqa: S311 - a simulation's
    mean_s, rate = 2 * machine.patience_s[1], 2 * load * machine.capacity_per_s()
    requests: list[Request] = []
    now = 0.0
    while now < machine.seconds:
        end = min(now + rng.expovariate(1 / mean_s), machine.seconds)
        requests += _requests(machine, rate, rng, now, end)
        now = end + rng.expovariate(1 / mean_s)
    return requests


def _requests(
    machine: Machine, rate: float, rng: random.Random, start: float, end: float
) -> Iterator[Request]:
    now = start + rng.expovariate(rate)
    while now < end:
        yield Request(now, now + rng.uniform(*machine.patience_s))
        now += rng.expovariate(rate)


def _affine(first_s: float, further_s: float, sizes: range | tuple[int, ...]) -> dict[int, float]:
    return {size: first_s + further_s * (size - 1) for size in sizes}


_POWERS = (1, 2, 4, 8, 16, 32, 64)
CPU = Machine("CPU: L(b) = 6.5 + 5 (b - 1) ms", _affine(0.0065, 0.005, range(1, 9)), tuple(range(1, 9)),
              patience_s=(0.25, 0.25), max_queue_delay_ms=2.0, seconds=40.0)  # fmt: skip
GPU = Machine("GPU: L(1) = 2 ms … L(64) = 10 ms", _affine(0.002, 0.008 / 63, _POWERS), _POWERS,
              patience_s=(0.015, 0.050), max_queue_delay_ms=2.0, seconds=4.0)  # fmt: skip
