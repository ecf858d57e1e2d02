"""When calls are due in an open loop: arrival processes, seeded, and independent of any reply.

All but the constant one are Poisson processes. Those whose rate changes are made by inversion: arrivals
of rate 1 are drawn on an axis of expected arrivals, and brought to the axis of time by the inverse of the
rate's integral (Çinlar, Introduction to Stochastic Processes, 1975, section 4.7).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

ARRIVALS = ("poisson", "constant", "bursty", "ramp")
_DRAWN_AT_A_TIME = 1024


@dataclass(frozen=True)
class Traffic:
    """How calls arrive.

    Attributes:
        kind: one of `ARRIVALS`. poisson: at random, independent of each other. constant: evenly spaced.
            bursty: Poisson while a burst is on, nothing while it is off, beginning with a burst. ramp:
            Poisson, its rate going from `rate_per_s` to `ramp_to_per_s` in a straight line.
        rate_per_s: calls per second; of bursty traffic the mean over whole cycles.
        burst_on_s, burst_off_s: of a bursty cycle.
        ramp_to_per_s: the rate at the end of the ramp, which holds from there.
        ramp_from_s: when the ramp begins; before, the rate is `rate_per_s`.
        ramp_s: how long it lasts.
    """

    kind: str
    rate_per_s: float
    burst_on_s: float = 1.0
    burst_off_s: float = 1.0
    ramp_to_per_s: float = 0.0
    ramp_from_s: float = 0.0
    ramp_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError where a value can't be used."""
        if self.kind not in ARRIVALS:
            raise ValueError(f"arrivals are {self.kind!r}; expected one of {', '.join(ARRIVALS)}")
        if not 0 < self.rate_per_s < math.inf:
            raise ValueError(f"the rate is {self.rate_per_s} calls per second; expected more than 0")
        if self.kind == "bursty" and not (
            0 < self.burst_on_s < math.inf and 0 <= self.burst_off_s < math.inf
        ):
            raise ValueError(
                f"bursts are {self.burst_on_s} s on and {self.burst_off_s} s off; "
                "expected more than 0 s on and at least 0 s off"
            )
        if self.kind == "ramp" and not (
            0 < self.ramp_to_per_s < math.inf
            and 0 < self.ramp_s < math.inf
            and 0 <= self.ramp_from_s < math.inf
        ):
            raise ValueError(
                f"the ramp goes to {self.ramp_to_per_s} calls per second in {self.ramp_s} s from "
                f"{self.ramp_from_s} s on; expected more than 0, more than 0 and at least 0"
            )

    @property
    def burst_rate_per_s(self) -> float:
        """Calls per second while a burst is on."""
        return self.rate_per_s * (self.burst_on_s + self.burst_off_s) / self.burst_on_s

    def times(self, until_s: float, seed: int) -> Iterator[float]:
        """When each call is due, in seconds from the start, ascending, all below `until_s`.

        Args:
            until_s: the end.
            seed: the same seed gives the same times.
        """
        to_time = self._inverse()
        expected = map(float, count()) if self.kind == "constant" else _unit_poisson(seed)
        for position in expected:
            time_s = to_time(position)
            if time_s >= until_s:
                return
            yield time_s

    def _inverse(self) -> Callable[[float], float]:
        """From expected arrivals since the start to seconds since the start."""
        if self.kind == "bursty":
            return self._bursty_time
        if self.kind == "ramp":
            return self._ramp_time
        return lambda position: position / self.rate_per_s

    def _bursty_time(self, position: float) -> float:
        cycles, within_s = divmod(position / self.burst_rate_per_s, self.burst_on_s)
        return cycles * (self.burst_on_s + self.burst_off_s) + within_s

    def _ramp_time(self, position: float) -> float:
        before = self.rate_per_s * self.ramp_from_s
        if position <= before:
            return position / self.rate_per_s
        position -= before
        on_the_ramp = self.ramp_s * (self.rate_per_s + self.ramp_to_per_s) / 2
        if position >= on_the_ramp:
            return self.ramp_from_s + self.ramp_s + (position - on_the_ramp) / self.ramp_to_per_s
        # rate·t + slope/2·t² = position; this form of the root holds for a slope of 0 as well.
        slope = (self.ramp_to_per_s - self.rate_per_s) / self.ramp_s
        root = math.sqrt(self.rate_per_s**2 + 2 * slope * position)
        return self.ramp_from_s + 2 * position / (self.rate_per_s + root)


def _unit_poisson(seed: int) -> Iterator[float]:
    generator = np.random.default_rng(seed)
    position = 0.0
    while True:
        for gap in generator.standard_exponential(_DRAWN_AT_A_TIME).tolist():
            position += gap
            yield position
