"""The latency table L(batch): how long a run of so many images takes."""

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence

# Of the runs that are remembered the slow ones count: a late answer costs more than a smaller batch.
_QUANTILE = 0.9
_REMEMBERED_RUNS = 32
# A size that looked slow is avoided, and so can't prove the contrary: after so many runs of other sizes
# the slowest of its runs is forgotten.
_RUNS_UNTIL_FORGOTTEN = 16


class LatencyTable:
    """L(b) in seconds.

    Warm-up gives each size's time alone on the machine; from then on every run tells by which factor it
    took longer, and the 0.9-quantile of the last 32 factors of that size's neighbourhood is applied. Sizes
    that don't run any more forget their slowest runs one by one.
    """

    def __init__(self, warm_s: Mapping[int, float], batch_sizes: Sequence[int]) -> None:
        """Make the table.

        Args:
            warm_s: batch size → seconds of a warm run, for at least one size.
            batch_sizes: what really runs, ascending; a batch between two of them is padded to the larger.
        """
        self._sizes = sorted(warm_s)
        slowest = 0.0
        self._seconds: list[float] = []
        for size in self._sizes:
            slowest = max(slowest, warm_s[size])
            self._seconds.append(slowest)
        self._batch_sizes = list(batch_sizes)
        self._factors = [deque([1.0], _REMEMBERED_RUNS) for _ in self._sizes]
        self._factor = [1.0] * len(self._sizes)
        self._runs_of_others = [0] * len(self._sizes)
        self._known: dict[int, float] = {}  # asked since the last run

    def __call__(self, batch_size: int) -> float:
        """L(batch_size), in seconds; beyond the largest size its time for each started one."""
        seconds = self._known.get(batch_size)
        if seconds is None:
            warm_s, place = self._look_up(batch_size)
            seconds = self._known[batch_size] = warm_s * self._factor[place]
        return seconds

    def warm_s(self, batch_size: int) -> float:
        """What a run of that size took at warm-up, in seconds."""
        return self._look_up(batch_size)[0]

    def observe(self, batch_size: int, seconds: float) -> None:
        """A run of that many images took so long, from its dispatch to its results."""
        warm_s, place = self._look_up(batch_size)
        self._factors[place].append(seconds / warm_s)
        self._update(place)
        for other in range(len(self._sizes)):
            self._runs_of_others[other] += 1
            if other != place and not self._runs_of_others[other] % _RUNS_UNTIL_FORGOTTEN:
                self._forget_slowest(other)
        self._runs_of_others[place] = 0

    def _update(self, place: int) -> None:
        factors = self._factors[place]
        self._factor[place] = sorted(factors)[int(_QUANTILE * (len(factors) - 1))]
        self._known.clear()

    def _forget_slowest(self, place: int) -> None:
        factors = self._factors[place]
        if len(factors) > 1:
            factors.remove(max(factors))
            self._update(place)

    def _look_up(self, batch_size: int) -> tuple[float, int]:
        """The warm time of a size, interpolated, and the index of the size that its factor is kept with."""
        largest = self._batch_sizes[-1]
        if batch_size > largest:
            full, rest = divmod(batch_size, largest)
            return full * self._seconds[-1] + (self._look_up(rest)[0] if rest else 0.0), len(self._sizes) - 1
        padded = self._batch_sizes[bisect_left(self._batch_sizes, batch_size)]
        above = min(bisect_left(self._sizes, padded), len(self._sizes) - 1)
        if self._sizes[above] == padded or above == 0:
            return self._seconds[above], above
        low, high = self._sizes[above - 1], self._sizes[above]
        share = (padded - low) / (high - low)
        return self._seconds[above - 1] + share * (self._seconds[above] - self._seconds[above - 1]), above
