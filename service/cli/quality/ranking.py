"""Right answers' places in a ranking → Recall@K, precision@10, mAP and mAP@R.

The formulas are those of training/retrieval_metrics.py, and a test compares the two; the service can't import
training, whose tensors need PyTorch. mAP@R is of Musgrave et al. 2020 (arXiv:2003.08505, section 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RECALL_AT = (1, 5, 10)
PRECISION_AT = 10


@dataclass(frozen=True)
class Scores:
    """Means over queries, each 0 to 1.

    Attributes:
        recall_at: k → share of queries with a right answer among the first k.
        precision_at_10: share of right ones among the first 10 answers, or among all where there are fewer.
        mean_average_precision: of 1/R Σ precision@i over the right ones' places i, R being how many right
            ones there are.
        map_at_r: the same over the right ones among the first R answers only.
    """

    recall_at: dict[int, float]
    precision_at_10: float
    mean_average_precision: float
    map_at_r: float

    def named(self) -> dict[str, float]:
        """By the names that tables and JSON use."""
        return {
            **{f"recall_at_{k}": value for k, value in self.recall_at.items()},
            "precision_at_10": self.precision_at_10,
            "map": self.mean_average_precision,
            "map_at_r": self.map_at_r,
        }


def places(scores: NDArray[np.float32], right: NDArray[np.bool_], slack: float = 0.0) -> NDArray[np.int64]:
    """Where the right answers stand among all, from 1, ascending.

    Of equally near answers the wrong ones count as first: a model that gives every image the same vector
    scores nothing, whatever the order of the images.

    Args:
        scores: float32 [answers]; higher is nearer.
        right: bool [answers].
        slack: scores no farther apart than this are equally near.

    Returns:
        int64 [right ones].
    """
    near = np.sort(scores[right])[::-1]
    wrong = np.sort(scores[~right])
    in_front = len(wrong) - np.searchsorted(wrong, near - np.float32(slack), side="left")
    found: NDArray[np.int64] = in_front + np.arange(1, len(near) + 1)
    return found


class Tally:
    """Adds up queries."""

    def __init__(self, recall_at: Sequence[int] = RECALL_AT) -> None:
        self._recall_at = tuple(recall_at)
        self._rows: list[tuple[float, ...]] = []

    def add(self, found: NDArray[np.int64], relevant: int, answers: int) -> None:
        """One query.

        Args:
            found: int64, the places of the right answers, from 1, ascending; those that a cut ranking doesn't
                have are missing, and add nothing.
            relevant: how many right ones there are, at least 1.
            answers: how many items could have been found.
        """
        precision = np.arange(1, len(found) + 1) / found
        self._rows.append(
            (
                *(float(bool((found <= k).any())) for k in self._recall_at),
                float((found <= PRECISION_AT).sum()) / min(PRECISION_AT, answers),
                float(precision.sum()) / relevant,
                float(precision[found <= relevant].sum()) / relevant,
            )
        )

    def scores(self) -> Scores:
        """The means; there was a query at least."""
        *recalls, precision, average, at_r = (float(value) for value in np.mean(self._rows, axis=0))
        return Scores(dict(zip(self._recall_at, recalls, strict=True)), precision, average, at_r)
