"""How a run went, epoch by epoch: what its metrics.jsonl says."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from training.errors import RunError

# What the scores' panel shows: the first of them that the run has.
_SCORES = ("accuracy", "mean_average_precision", "recall_at_1")


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        name: 'train' or 'val'.
        epochs: where there is a value.
        values: one each.
    """

    name: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class History:
    """Attributes: the lines of the loss, and of the score that is called `score_name`."""

    loss: tuple[Series, ...]
    score: tuple[Series, ...]
    score_name: str

    def as_good_as(self, epoch: int) -> tuple[int, ...]:
        """The other epochs with that epoch's score on val, where no epoch has a better one."""
        scores = next(
            (dict(zip(one.epochs, one.values, strict=True)) for one in self.score if one.name == "val"), {}
        )
        if epoch not in scores or max(scores.values()) > scores[epoch]:
            return ()
        return tuple(other for other, score in scores.items() if score == scores[epoch] and other != epoch)


def read_history(run: Path) -> History | None:
    """What `run`/metrics.jsonl says; None where there is none yet.

    Raises:
        RunError: it can't be read.
    """
    path = run / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        epochs = [line for line in lines if "epoch" in line]
        found = next((name for name in _SCORES if any(f"val_{name}" in line for line in epochs)), _SCORES[0])
        history = History(_series(epochs, "loss"), _series(epochs, found), found.replace("_", " "))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not the metrics of a run: {error}") from error
    return history if history.loss or history.score else None


def _series(lines: list[dict[str, float]], metric: str) -> tuple[Series, ...]:
    found = []
    for part in ("train", "val"):
        name = f"{part}_{metric}"
        points = [(int(line["epoch"]), float(line[name])) for line in lines if line.get(name) is not None]
        points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
        if points:
            epochs, values = zip(*points, strict=True)
            found.append(Series(part, epochs, values))
    return tuple(found)
