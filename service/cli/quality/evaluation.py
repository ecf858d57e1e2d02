"""Labelled queries against a gallery: what exact search would find, and what the index finds."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fovea import Client, Collection, FoveaError, Neighbor, Query
from numpy.typing import NDArray

from service.cli.bulk.progress import progress
from service.cli.quality.labelled import Pictures
from service.cli.quality.ranking import Scores, Tally, places

TOP_K = 10
# The index is asked for so many more, and gives 1,000 at most, unless configured.
MOST_COPIES = 100
_QUERIES_AT_ONCE = 64
# Of a product of unit vectors in float32, which differs in the last bits from one batch, processor or engine
# to another; twice what was seen of vectors that are equal.
_ROUNDING = 5e-7


@dataclass(frozen=True)
class Answer:
    """One of a query's nearest, as the index finds them.

    Attributes:
        row: in the gallery.
        score: as the index says.
        is_right: whether it has the query's label.
    """

    row: int
    score: float
    is_right: bool


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        rows: of the queries, in their folder.
        exact: of rankings of the whole gallery by brute force.
        index: of the first 10 that the index finds; its mAP and mAP@R end there and mean nothing.
        index_recall: share of the true 10 nearest that the index finds.
        answers: of each query, nearest first.
    """

    rows: list[int]
    exact: Scores
    index: Scores
    index_recall: float
    answers: list[list[Answer]]


def chosen_queries(asked: Pictures, gallery: Pictures, most: int, seed: int) -> tuple[list[int], int]:
    """Pictures that have a label and another picture of it in the gallery: at most so many, at random.

    Those of which the gallery has more than 100 copies, such as a stand-in for missing ones, are left out.

    Returns:
        Their rows, and how many there would be in all.
    """
    known = _Gallery(gallery)
    in_class = Counter(gallery.labels)

    def can_be_asked(row: int, label: str) -> bool:
        copies = known.copies(asked, row)
        return len(copies) <= MOST_COPIES and in_class[label] > sum(
            gallery.labels[copy] == label for copy in copies
        )

    able = [row for row, label in enumerate(asked.labels) if label and can_be_asked(row, label)]
    order = np.random.default_rng(seed).permutation(len(able))[:most]
    return [able[number] for number in order.tolist()], len(able)


def evaluate(
    client: Client,
    collection: Collection,
    asked: Pictures,
    gallery: Pictures,
    rows: list[int],
    recall: float | None,
) -> Evaluation:
    """Search each query among all other pictures.

    A picture never finds itself: items with the same content are no answers.

    Args:
        client: of the server.
        collection: which holds the gallery.
        asked: the queries' folder.
        gallery: all items of the collection.
        rows: of the queries; one at least, each with a right answer.
        recall: what the index is asked for; None: the server's default.
    """
    row_of = {item_id: row for row, item_id in enumerate(gallery.ids)}
    known = _Gallery(gallery)
    slacks = slack(asked.vectors, gallery.vectors, collection.metric).tolist()
    exact, index = Tally(), Tally()
    shares: list[float] = []
    answers: list[list[Answer]] = []
    with progress("queries") as bar:
        task = bar.add_task("searching", total=len(rows))
        for block in _blocks(rows):
            copies = [known.copies(asked, row) for row in block]
            nearness = scores(asked.vectors[block], gallery.vectors, collection.metric)
            found = _search(client, collection.name, asked, block, TOP_K + max(map(len, copies)), recall)
            for row, same, near, neighbors in zip(block, copies, nearness, found, strict=True):
                equal = slacks[row]
                kept = np.ones(len(gallery.ids), np.bool_)
                kept[same] = False
                right = known.right(asked.labels[row]) & kept
                relevant = int(right.sum())
                exact.add(places(near[kept], right[kept], equal), relevant, int(kept.sum()))
                # What was written since the gallery was read has no row, and is no answer.
                there = [(row_of[each.id], each.score) for each in neighbors if each.id in row_of]
                mine = [Answer(at, score, bool(right[at])) for at, score in there if kept[at]][:TOP_K]
                rows_found = np.array([each.row for each in mine], np.int64)
                index.add(_places_found(near, right, kept, rows_found, equal), relevant, int(kept.sum()))
                shares.append(_share_found(near, kept, rows_found, equal))
                answers.append(mine)
            bar.advance(task, len(block))
    return Evaluation(rows, exact.scores(), index.scores(), float(np.mean(shares)), answers)


def scores(queries: NDArray[np.float32], gallery: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """float32 [queries, gallery] by brute force: higher is nearer; of l2 minus the square of the distance."""
    if metric == "cosine":
        queries, gallery = unit(queries), unit(gallery)
    found = queries @ gallery.T
    if metric == "l2":
        found = 2 * found - (queries**2).sum(axis=1)[:, None] - (gallery**2).sum(axis=1)
    return np.asarray(found, np.float32)


def slack(queries: NDArray[np.float32], gallery: NDArray[np.float32], metric: str) -> NDArray[np.float64]:
    """float64 [queries]: of two `scores` no farther apart, neither is nearer: that is float32's rounding."""
    if metric == "cosine":
        return np.full(len(queries), _ROUNDING)
    lengths, longest = np.linalg.norm(queries, axis=1), np.linalg.norm(gallery, axis=1).max(initial=0)
    found = lengths * longest if metric == "inner_product" else lengths**2 + longest**2
    return np.asarray(_ROUNDING * found, np.float64)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; a zero row stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


class _Gallery:
    """What is asked of a gallery's pictures again and again."""

    def __init__(self, pictures: Pictures) -> None:
        self.rows_by_content: dict[str, list[int]] = {}
        for row, content in enumerate(pictures.contents):
            self.rows_by_content.setdefault(content, []).append(row)
        codes = {label: code for code, label in enumerate(dict.fromkeys(pictures.labels))}
        self._codes = codes
        self.labels = np.array([codes[label] for label in pictures.labels])

    def copies(self, asked: Pictures, row: int) -> list[int]:
        """Rows of what is the query itself, or a copy of its file."""
        place = asked.places[row]
        path = str(place.absolute()) if isinstance(place, Path) else ""
        own = {asked.contents[row], path} - {""}
        return [same for content in own for same in self.rows_by_content.get(content, ())]

    def right(self, label: str) -> NDArray[np.bool_]:
        """bool [gallery]: which have this label."""
        found: NDArray[np.bool_] = self.labels == self._codes.get(label, -1)
        return found


def _blocks(rows: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(rows), _QUERIES_AT_ONCE):
        yield rows[start : start + _QUERIES_AT_ONCE]


def _search(
    client: Client, name: str, asked: Pictures, block: list[int], top_k: int, recall: float | None
) -> list[list[Neighbor]]:
    queries = [Query(vector=asked.vectors[row]) for row in block]
    found: list[list[Neighbor]] = []
    for result in client.search_batch(
        name, queries, top_k=top_k, fingerprint=asked.fingerprint or None, recall=recall
    ):
        if isinstance(result, FoveaError):
            raise result
        found.append(result)
    return found


def _places_found(
    near: NDArray[np.float32],
    right: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    found: NDArray[np.int64],
    equal: float,
) -> NDArray[np.int64]:
    """Where the right ones that were found stand, from 1, ascending.

    As in the exact ranking, wrong ones that are equally near count as first, whether they were found or not:
    which of them an index names is up to chance.
    """
    right_found = np.sort(near[found][right[found]])
    lower, upper = near - np.float32(equal), near + np.float32(equal)
    equally_near = np.searchsorted(right_found, upper, "right") > np.searchsorted(right_found, lower, "left")
    counted = kept & ~right & equally_near
    counted[found] = True
    return places(near[counted], right[counted], equal)


def _share_found(
    near: NDArray[np.float32], kept: NDArray[np.bool_], found: NDArray[np.int64], equal: float
) -> float:
    """The share of the true nearest among what was found; of equally near ones any is right."""
    true = min(TOP_K, int(kept.sum()))
    bound = np.partition(near[kept], -true)[-true]
    return float((near[found] >= bound - np.float32(equal)).sum()) / true
