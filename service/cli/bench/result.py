"""A run's result: the numbers, as the table, the plot and the JSON file show them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.cli.bench.floor_process import FloorRound
from service.cli.bench.recorder import KINDS, Latencies, Recording, merged

# Beyond it the schedule wasn't the one that was asked for.
MAX_SEND_LAG_MS = 10.0
# Beyond it the generator, not the server, may set the pace.
MAX_CPU_SHARE = 0.9


@dataclass(frozen=True)
class Comparison:
    """The floor's rounds, in turns with the served ones.

    Attributes:
        rounds: one for each served round.
        batch_size: images in each of its batches.
        threads: it had.
    """

    rounds: Sequence[FloorRound]
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Result:
    """All that a run found out.

    Attributes:
        rounds: what was recorded in each.
        images_per_call: images, vectors or ids in a message; at least 1.
        parameters, machine, server: what was asked for, where, and of whom.
        floor: None without `--compare floor`.
    """

    rounds: Sequence[Recording]
    images_per_call: int
    parameters: dict[str, Any]
    machine: dict[str, Any]
    server: dict[str, Any]
    floor: Comparison | None = None

    @property
    def whole(self) -> Recording:
        """All rounds together."""
        return merged(self.rounds)

    @property
    def ratio(self) -> float | None:
        """Images per second served ÷ those of the floor: the median of the rounds."""
        if self.floor is None:
            return None
        pairs = zip(self.rounds, self.floor.rounds, strict=True)
        return statistics.median(
            images_per_s(served, self.images_per_call) / floor.images_per_s for served, floor in pairs
        )

    def warnings(self) -> list[str]:
        """What makes the figures doubtful, one sentence each."""
        whole, found = self.whole, []
        lag_p99_ms = whole.send_lag.percentiles_ms(99.0)[0]
        if lag_p99_ms is not None and lag_p99_ms > MAX_SEND_LAG_MS:
            found.append(
                f"the generator couldn't keep up with its schedule: 1% of the calls were sent more than "
                f"{lag_p99_ms:.0f} ms late (counted as latency); give it a core of its own or a lower rate"
            )
        if whole.counts["not_sent"]:
            found.append(
                f"{whole.counts['not_sent']} calls were not sent: --max-in-flight calls were under way, or "
                "the generator was later than the deadline"
            )
        if whole.offered and whole.cpu_s / whole.wall_s > MAX_CPU_SHARE:
            found.append(
                f"the generator used {whole.cpu_s / whole.wall_s:.0%} of a core: it, not the server, may "
                "have set the pace"
            )
        return found

    def document(self) -> dict[str, Any]:
        """For `--output`. Rates are per second; latencies in ms, None where nothing was measured."""
        whole = self.whole
        lag_p99_ms = whole.send_lag.percentiles_ms(99.0)[0]
        document: dict[str, Any] = {
            "throughput": whole.answered / whole.duration_s,
            "goodput": whole.counts["ok"] / whole.duration_s,
            "images_per_s": images_per_s(whole, self.images_per_call),
            "latency_ms": percentiles(whole.latencies),
            **{kind: whole.counts[kind] for kind in KINDS},
            "offered": whole.offered,
            "offered_rate": whole.offered / whole.duration_s,
            "answered": whole.answered,
            "errors_by_code": dict(whole.errors),
            "error_examples": whole.examples,
            "accepted_latency_ms": percentiles(whole.accepted),
            "refusal_latency_ms": percentiles(whole.refusals),
            "generator": {
                "send_lag_ms": percentiles(whole.send_lag),
                "loop_lag_ms": percentiles(whole.loop_lag),
                "cpu_share": whole.cpu_s / whole.wall_s if whole.wall_s else None,
                "kept_up": lag_p99_ms is None or lag_p99_ms <= MAX_SEND_LAG_MS,
            },
            "warnings": self.warnings(),
            "rounds": [
                {
                    "throughput": each.answered / each.duration_s,
                    "goodput": each.counts["ok"] / each.duration_s,
                    **{kind: each.counts[kind] for kind in KINDS},
                }
                for each in self.rounds
            ],
            "timeline": [
                {"at_s": round(at, 3), "length_s": round(length, 3), **{kind: counts[kind] for kind in KINDS}}
                for at, length, counts in whole.timeline
            ],
            "parameters": self.parameters,
            "server": self.server,
            "machine": self.machine,
        }
        if self.floor is not None:
            document = {"ratio": self.ratio, "floor": self._floor_document(self.floor)} | document
        return document

    @staticmethod
    def _floor_document(floor: Comparison) -> dict[str, Any]:
        batches = Latencies()
        for each in floor.rounds:
            batches.add(each.batches)
        return {
            "images_per_s": statistics.median(each.images_per_s for each in floor.rounds),
            "rounds_images_per_s": [each.images_per_s for each in floor.rounds],
            "batch_size": floor.batch_size,
            "threads": floor.threads,
            "batch_ms": percentiles(batches),
        }


def images_per_s(recording: Recording, images_per_call: int) -> float:
    """Images (or vectors, or ids) answered per second."""
    return recording.answered * images_per_call / recording.duration_s


def percentiles(latencies: Latencies) -> dict[str, float | None]:
    """Those that everybody asks for, in ms."""
    p50, p90, p99, p999, most = latencies.percentiles_ms(50.0, 90.0, 99.0, 99.9, 100.0)
    return {"p50": p50, "p90": p90, "p99": p99, "p999": p999, "max": most, "mean": latencies.mean_ms()}
