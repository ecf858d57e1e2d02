"""Columns and the masks made of them, against `matches` row by row."""

import json
import threading
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.retrieval.checks import Batch
from service.retrieval.filters import Equals, Exists, Filter, In, Not, Range, matches
from service.retrieval.masks import kept_by
from service.retrieval.segments import Segments
from tests.service.retrieval.draws import SCHEMA, Draw


def filled(rows: list[dict[str, Any]], max_rows: int) -> Segments:
    segments = Segments(1, max_rows, schema=SCHEMA)
    rows = [row | ({"ratio": float(row["ratio"])} if "ratio" in row else {}) for row in rows]
    texts = [json.dumps(row) for row in rows]
    ids = [str(n) for n in range(len(rows))]
    segments.publish(segments.prepare(Batch(ids, np.zeros((len(rows), 1), np.float32), texts)))
    return segments


def kept(segments: Segments, condition: Filter) -> list[str]:
    view = segments.view()
    masks = kept_by(condition, view)
    assert [mask.shape for mask in masks] == [(segment.used,) for segment in view]
    assert all(mask.dtype == np.bool_ for mask in masks)
    return [s.ids[row] for s, mask in zip(view, masks, strict=True) for row in np.flatnonzero(mask)]


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sets(st.integers(0, 29)))
def test_a_mask_keeps_what_matches(seed: int, max_rows: int, gone: set[int]) -> None:
    draw = Draw(seed)
    rows: list[dict[str, Any]] = [draw.attributes() for _ in range(30)]
    segments = filled(rows, max_rows)
    removed = [str(n) for n in sorted(gone)]
    segments.publish(segments.prepare(removed=removed))
    stored = [row | ({"ratio": float(row["ratio"])} if "ratio" in row else {}) for row in rows]
    for condition in [draw.condition() for _ in range(20)]:
        assert kept(segments, condition) == [
            str(n) for n, row in enumerate(stored) if str(n) not in removed and matches(condition, row)
        ]


def test_masks_of_the_same_rows_are_new_arrays() -> None:
    """A search may change its mask: columns stay as they are."""
    segments = filled([{"label": "a", "size": 1, "good": True}] * 4, 8)
    view = segments.view()
    conditions: list[Filter] = [
        Exists("good"),
        Exists("label"),
        Equals("good", True),
        Equals("label", "a"),
        In("size", (1,)),
        Range("size", gte=0),
        Range("label", gte="a"),
    ]
    for condition in conditions:
        kept_by(condition, view)[0][:] = False
        assert kept(segments, condition) == list("0123")


def test_a_view_is_filtered_while_strings_come_and_go() -> None:
    segments = filled([{"label": f"label {n % 7}"} for n in range(60)], 64)
    view = segments.view()
    finished = threading.Event()

    def write() -> None:
        step = 0
        while not finished.is_set():
            step += 1
            texts = [json.dumps({"label": f"new {step} {n}"}) for n in range(4)]
            # Never published: the next one forgets its strings again.
            segments.prepare(Batch(list("wxyz"), np.zeros((4, 1), np.float32), texts))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3000):
            label = f"label {number % 7}"
            [mask] = kept_by(Range("label", gte=label, lte=label), view)
            assert np.flatnonzero(mask).tolist() == list(range(number % 7, 60, 7))
            [mask] = kept_by(Not(In("label", (label, "new 1 1"))), view)
            assert np.count_nonzero(~mask) == len(range(number % 7, 60, 7))
    finally:
        finished.set()
        writer.join()
