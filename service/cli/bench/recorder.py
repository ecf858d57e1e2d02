"""What became of the calls: counts, latencies and how both went over time."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

from service.cli.bench.methods import OK, Reply

# 3 significant figures, from a microsecond to an hour.
_SIGNIFICANT_FIGURES, _SIGNIFICANT_BITS = 3, 11
_MAX_US = 3_600_000_000
_TIME_STEPS = 100
_LEAST_STEP_S = 0.1
KINDS = ("ok", "late", "shed", "errors", "not_sent")


class Latencies:
    """A histogram of latencies, exact to 3 significant figures."""

    def __init__(self) -> None:
        # HdrHistogram's own recording takes some 10 µs in Python. Values are brought to its resolution
        # here and handed over when somebody asks.
        self._counts: Counter[int] = Counter()

    def record(self, latency_s: float) -> None:
        """Count one, in seconds."""
        us = min(max(int(latency_s * 1e6), 1), _MAX_US)
        shift = max(us.bit_length() - _SIGNIFICANT_BITS, 0)
        self._counts[us >> shift << shift] += 1

    def add(self, other: "Latencies") -> None:
        """Count all of another's too."""
        self._counts.update(other._counts)

    @property
    def count(self) -> int:
        """How many were recorded."""
        return self._counts.total()

    def histogram(self) -> HdrHistogram:
        """As an HdrHistogram of microseconds."""
        histogram = HdrHistogram(1, _MAX_US, _SIGNIFICANT_FIGURES)
        for us, count in self._counts.items():
            histogram.record_value(us, count)
        return histogram

    def percentiles_ms(self, *percentiles: float) -> list[float | None]:
        """Values that so many percent don't exceed, in ms; None where nothing was recorded."""
        if not self._counts:
            return [None] * len(percentiles)
        found = self.histogram().get_percentile_to_value_dict(list(percentiles))
        return [found[percentile] / 1000 for percentile in percentiles]

    def mean_ms(self) -> float | None:
        """Their mean, in ms; None where nothing was recorded."""
        total = sum(us * count for us, count in self._counts.items())
        return total / self.count / 1000 if self._counts else None


@dataclass
class Recording:
    """What was counted of the calls in the measured time; each is exactly one of `KINDS`.

    Attributes:
        duration_s: of the measured time.
        counts: how many calls, by kind. ok: answered inside the deadline. late: answered or given up
            after it. shed: refused with RESOURCE_EXHAUSTED. errors: everything else that failed, also
            one image of a message. not_sent: the generator couldn't (see `runner`).
        answered: calls that were answered, inside the deadline or after it.
        errors: how many, by code.
        examples: one error message of each code.
        latencies: of the calls that were answered.
        accepted: of those, and of those that were given up: how long their callers waited.
        refusals: of the calls that were shed.
        send_lag: how much later than intended calls were sent.
        loop_lag: how late the generator's event loop was.
        timeline: (seconds from the start, length of the step, counts by kind) in order.
        cpu_s: of the generator, over `wall_s` seconds.
    """

    duration_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    accepted: Latencies = field(default_factory=Latencies)
    refusals: Latencies = field(default_factory=Latencies)
    send_lag: Latencies = field(default_factory=Latencies)
    loop_lag: Latencies = field(default_factory=Latencies)
    timeline: list[tuple[float, float, Counter[str]]] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def offered(self) -> int:
        """All calls that were due in the measured time."""
        return self.counts.total()


class Recorder:
    """Counts calls into a `Recording`. Times are seconds from the start of the run."""

    def __init__(self, from_s: float, until_s: float, deadline_s: float | None) -> None:
        """Prepare.

        Args:
            from_s, until_s: the measured time; calls outside of it are not counted.
            deadline_s: what is answered after it is late; None: nothing is.
        """
        self._from_s, self._until_s = from_s, until_s
        self._deadline_s = math.inf if deadline_s is None else deadline_s
        self.recording = Recording(duration_s=until_s - from_s)
        self._step_s = max(self.recording.duration_s / _TIME_STEPS, _LEAST_STEP_S)
        steps = math.ceil(round(self.recording.duration_s / self._step_s, 6))
        self._steps: list[Counter[str]] = [Counter() for _ in range(steps)]
        self.recording.timeline = [
            (i * self._step_s, min(self._step_s, self.recording.duration_s - i * self._step_s), counts)
            for i, counts in enumerate(self._steps)
        ]

    def call(self, moment_s: float, latency_s: float, reply: Reply) -> None:
        """Count a call.

        Args:
            moment_s: what decides whether it lies in the measured time: its end in a closed loop, its
                intended beginning in an open one.
            latency_s: from its (intended) beginning to its end.
            reply: how it ended.
        """
        if not self._from_s <= moment_s < self._until_s:
            return
        recording = self.recording
        kind = self._kind(latency_s, reply)
        self._count(kind, moment_s)
        if reply.code == OK:
            recording.answered += 1
            recording.latencies.record(latency_s)
        if kind in ("ok", "late"):
            recording.accepted.record(latency_s)
        elif kind == "shed":
            recording.refusals.record(latency_s)
        else:
            recording.errors[reply.code] += 1
        if reply.code != OK and reply.code not in recording.examples:
            recording.examples[reply.code] = reply.detail

    def not_sent(self, moment_s: float) -> None:
        """Count a call that was due and couldn't be sent."""
        if self._from_s <= moment_s < self._until_s:
            self._count("not_sent", moment_s)

    def send_lag(self, moment_s: float, lag_s: float) -> None:
        """Count how much later than intended a call was sent."""
        if self._from_s <= moment_s < self._until_s:
            self.recording.send_lag.record(lag_s)

    def _kind(self, latency_s: float, reply: Reply) -> str:
        if reply.code == OK:
            return "ok" if latency_s <= self._deadline_s else "late"
        if reply.code == "DEADLINE_EXCEEDED":
            return "late"
        # gRPC has the same code for messages that are too large.
        if reply.code == "RESOURCE_EXHAUSTED" and "larger than max" not in reply.detail:
            return "shed"
        return "errors"

    def _count(self, kind: str, moment_s: float) -> None:
        self.recording.counts[kind] += 1
        step = min(int((moment_s - self._from_s) / self._step_s), len(self._steps) - 1)
        self._steps[step][kind] += 1


def merged(recordings: Iterable[Recording]) -> Recording:
    """Several rounds as one, one after the other."""
    whole = Recording()
    for part in recordings:
        whole.timeline += [(whole.duration_s + at, length, counts) for at, length, counts in part.timeline]
        whole.duration_s += part.duration_s
        whole.counts.update(part.counts)
        whole.answered += part.answered
        whole.errors.update(part.errors)
        whole.examples = part.examples | whole.examples
        for name in ("latencies", "accepted", "refusals", "send_lag", "loop_lag"):
            getattr(whole, name).add(getattr(part, name))
        whole.cpu_s += part.cpu_s
        whole.wall_s += part.wall_s
    return whole
