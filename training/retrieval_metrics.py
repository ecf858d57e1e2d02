"""How well embeddings find images of the same class: Recall@k and mAP@R, exact.

Each image in turn is the query, all the others are searched by cosine. mAP@R is of Musgrave et al. 2020
(arXiv:2003.08505, section 3.2): the mean over the queries of 1/R Σ precision@i over the right ones among
the first R answers, R being the number of right ones there are. Unlike Recall@1, it sees the whole order.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.errors import DataError

RECALL_AT = (1, 5, 10)
# Similarities held at once, 4 MiB of float32; but 16 queries at least, or products become slow.
_BLOCK_ELEMENTS = 1 << 20
_LEAST_ROWS = 16
# Of cosines in float32: they differ in the last bits from one batch or processor to another; twice what was
# seen of embeddings that are equal.
_ROUNDING = 5e-7


@dataclass(frozen=True)
class RetrievalScores:
    """Of one set of embeddings.

    Attributes:
        queries: images with another one of their class; the others are only searched.
        recall_at: k → share of queries with an image of their class among the first k answers.
        map_at_r: mean average precision at R.
    """

    queries: int
    recall_at: dict[int, float]
    map_at_r: float

    def named(self) -> dict[str, float]:
        """As metrics.jsonl and reports name them: recall_at_1, …, map_at_r."""
        return {f"recall_at_{k}": value for k, value in self.recall_at.items()} | {"map_at_r": self.map_at_r}


@torch.no_grad()
def retrieval_scores(
    embeddings: Tensor,
    labels: Tensor,
    recall_at: Sequence[int] = RECALL_AT,
    block_elements: int | None = None,
) -> RetrievalScores:
    """Search every image among all the others.

    Of answers that are equally near, but for float32's rounding, the wrong ones count as first: a network
    that gives every image the same embedding scores 0, whatever the order of the images.

    Args:
        embeddings: float [count, dimension], of any length; compared by cosine, where they lie.
        labels: int64 [count].
        recall_at: the k of each recall, at least 1.
        block_elements: similarities held at once; None for 4 MiB of them, or 16 rows where those are more.
            Bounds the memory (15,000 images of 5 classes take 60 MB), not the result.

    Raises:
        DataError: no class has two images, or an embedding isn't finite.
    """
    if not torch.isfinite(embeddings).all():
        raise DataError("an embedding holds what isn't a number; expected finite ones")
    # By class, so that the images of each lie together.
    labels, order = labels.to(embeddings.device).sort()
    unit = torch.nn.functional.normalize(embeddings[order].float(), dim=1)
    ends = [*((labels.diff() != 0).nonzero().flatten() + 1).tolist(), len(labels)]
    classes = [Slice(start, end) for start, end in itertools.pairwise([0, *ends]) if end - start > 1]
    rows = max(_LEAST_ROWS, _BLOCK_ELEMENTS // len(unit))
    if block_elements is not None:
        rows = max(1, block_elements // len(unit))
    first, precision = [], []
    for block in _blocks(classes, rows):
        for ranks in _ranks(unit, block, max(recall_at)):
            relevant = ranks.shape[1]
            right = torch.arange(1, relevant + 1, device=unit.device, dtype=torch.float64)
            precision.append(torch.where(ranks <= relevant, right / ranks, 0.0).sum(dim=1) / relevant)
            # A copy: a view would keep all the other places too.
            first.append(ranks[:, 0].clone())
    if not first:
        raise DataError(
            f"none of the {len(labels)} images to retrieve has another one of its class; expected classes of "
            "at least 2 images"
        )
    best = torch.cat(first)
    return RetrievalScores(
        queries=len(best),
        recall_at={k: float((best <= k).double().mean()) for k in recall_at},
        map_at_r=float(torch.cat(precision).mean()),
    )


class Slice(NamedTuple):
    """Images start to end, end not included."""

    start: int
    end: int


class Queries(NamedTuple):
    """Some images of one class, and all of that class."""

    asked: Slice
    friends: Slice


def _blocks(classes: Sequence[Slice], rows: int) -> Iterator[list[Queries]]:
    """All images of the classes, in order, in blocks of at most `rows`."""
    block: list[Queries] = []
    room = rows
    for friends in classes:
        start = friends.start
        while start < friends.end:
            end = min(friends.end, start + room)
            block.append(Queries(Slice(start, end), friends))
            room -= end - start
            start = end
            if room == 0:
                yield block
                block, room = [], rows
    if block:
        yield block


def _ranks(unit: Tensor, block: list[Queries], least: int) -> Iterator[Tensor]:
    """For each entry of a block the places of its right answers among all answers, from 1, ascending.

    A place that is deeper than counts, beyond R and `least`, may be given too small, never so small as to
    count.

    Args:
        unit: [count, dimension], of unit length.
        block: queries that follow one another, but for gaps between classes.
        least: the deepest place that counts for a recall.

    Yields:
        int64 [queries, R].
    """
    asked = torch.cat([torch.arange(*entry.asked) for entry in block])
    similarity = unit[asked.to(unit.device)] @ unit.T
    near, row = [], 0
    for (start, end), friends in block:
        mine = similarity[row : row + end - start, friends.start : friends.end]
        rows = torch.arange(end - start, device=unit.device)
        # The query itself is no answer: it goes behind all others, where it is cut off.
        mine[rows, rows + start - friends.start] = -torch.inf
        near.append(mine.sort(dim=1, descending=True).values[:, :-1])
        mine.fill_(-torch.inf)
        row += end - start
    depth = min(len(unit), max(least, *(each.shape[1] for each in near)))
    wrong = similarity.topk(depth, dim=1).values.flip(1)
    row = 0
    for each in near:
        # How many wrong ones are at least as near: those not below it, in ascending order.
        below = torch.searchsorted(wrong[row : row + len(each)].contiguous(), each - _ROUNDING)
        yield depth - below + torch.arange(1, each.shape[1] + 1, device=unit.device)
        row += len(each)
