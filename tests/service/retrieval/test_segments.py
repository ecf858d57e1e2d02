"""Segments: what a view sees, where rows go, and that deleted ones make room."""

import numpy as np
import pytest

from service.retrieval.checks import Batch
from service.retrieval.columns import StringColumn
from service.retrieval.index import Storage
from service.retrieval.schema import AttributeType
from service.retrieval.segments import MAX_SEGMENT_BYTES, Segment, Segments


def batch(ids: list[str], value: float = 0) -> Batch:
    return Batch(ids, np.full((len(ids), 2), value, np.float32), [f'{{"v":{value}}}'] * len(ids))


def put(segments: Segments, ids: list[str], value: float = 0) -> None:
    segments.publish(segments.prepare(batch(ids, value)))


def remove(segments: Segments, ids: list[str]) -> None:
    segments.publish(segments.prepare(removed=ids))


def names(view: tuple[Segment, ...]) -> list[str]:
    return [s.ids[row] for s in view for row in range(s.used) if not s.dead[row]]


def numbers(start: int, stop: int) -> list[str]:
    return [str(n) for n in range(start, stop)]


def test_rows_fill_segments_to_the_brim() -> None:
    segments = Segments(2, max_rows=4)
    for size, used in ((3, [3]), (1, [4]), (1, [4, 1]), (10, [4, 4, 4, 3])):
        put(segments, numbers(len(segments), len(segments) + size))
        assert [segment.used for segment in segments.view()] == used
    assert names(segments.view()) == numbers(0, 15)


def test_a_view_stays_as_it_was() -> None:
    segments = Segments(2, max_rows=4)
    put(segments, numbers(0, 6), 1)
    view = segments.view()
    put(segments, ["0", "5", "new"], 2)
    remove(segments, numbers(1, 5))
    put(segments, numbers(20, 40), 3)
    assert names(view) == numbers(0, 6)
    for segment in view:
        assert (segment.vectors[: segment.used] == 1).all()
        assert segment.attributes[: segment.used] == ['{"v":1}'] * segment.used


def test_a_change_that_is_dropped_leaves_no_trace() -> None:
    segments = Segments(2, max_rows=4)
    put(segments, numbers(0, 5), 1)
    for _ in range(3):
        segments.prepare(batch(["0", "x", "y", "z", "w"], 9))
        segments.prepare(removed=["1", "2"])
    assert names(segments.view()) == numbers(0, 5)
    assert "x" not in segments
    put(segments, ["b", "a"], 2)
    assert names(segments.view()) == [*numbers(0, 5), "b", "a"]
    [(segment, row)] = segments.read(["a"])
    assert (segment.ids[row], segment.attributes[row], segment.vectors[row, 0]) == ("a", '{"v":2}', 2)


def test_rows_stay_in_the_order_of_writing_through_compaction() -> None:
    rng = np.random.default_rng(7)
    segments, order = Segments(2, max_rows=8), list[str]()
    for step in range(400):
        ids = list(dict.fromkeys(str(n) for n in rng.integers(0, 60, rng.integers(1, 9))))
        if step % 3 == 2:
            ids = [name for name in ids if name in order]
            remove(segments, ids)
            order = [name for name in order if name not in ids]
        else:
            put(segments, ids, step)
            order = [name for name in order if name not in ids] + ids
        assert names(segments.view()) == order
        assert len(segments) == len(order)
        assert [s.ids[row] for s, row in segments.read(order)] == order
        assert all(not s.dead[row] for s, row in segments.read(order))


def test_deleted_rows_make_room() -> None:
    """Whatever was deleted, at most a quarter of what is held is dead, and no trail of small segments."""
    segments = Segments(2, max_rows=16)
    for _ in range(20):
        put(segments, numbers(0, 160))  # replaced each time
        assert sum(segment.used for segment in segments.view()) <= 160 * 4 / 3 + 1
        assert len(segments.view()) <= 2 * 160 / 16 + 1
    order = np.random.default_rng(7).permutation(160)
    for number in order[:157]:
        remove(segments, [str(number)])
        live = len(segments)
        assert sum(segment.used for segment in segments.view()) <= live * 4 / 3 + 1
        assert len(segments.view()) <= 2 * live / 16 + 1
    remove(segments, [str(number) for number in order[157:]])
    assert segments.view() == ()


SCHEMA = {"label": AttributeType.STRING, "n": AttributeType.INT}


def labelled(segments: Segments, ids: list[str], label: str) -> None:
    texts = [f'{{"label":"{label}","n":{name}}}' for name in ids]
    segments.publish(segments.prepare(Batch(ids, np.zeros((len(ids), 2), np.float32), texts)))


def values(view: tuple[Segment, ...]) -> dict[str, tuple[object, object]]:
    return {
        s.ids[row]: (s.columns["label"].value(row), s.columns["n"].value(row))
        for s in view
        for row in range(s.used)
        if not s.dead[row]
    }


def test_columns_follow_their_rows_through_compaction() -> None:
    rng = np.random.default_rng(7)
    segments, expected = Segments(2, max_rows=8, schema=SCHEMA), dict[str, tuple[object, object]]()
    for step in range(200):
        ids = list(dict.fromkeys(str(n) for n in rng.integers(0, 40, rng.integers(1, 9))))
        if step % 3 == 2:
            ids = [name for name in ids if name in expected]
            remove(segments, ids)
            for name in ids:
                del expected[name]
        else:
            view, before = segments.view(), values(segments.view())
            segments.prepare(Batch(["x", "y"], np.zeros((2, 2), np.float32), ['{"label":"dropped"}'] * 2))
            labelled(segments, ids, f"label {step}")
            expected |= {name: (f"label {step}", int(name)) for name in ids}
            assert values(view) == before
        assert values(segments.view()) == expected


def test_strings_that_no_row_has_are_forgotten() -> None:
    """However often items are replaced, and writes dropped."""
    segments = Segments(2, max_rows=16, schema=SCHEMA)
    for step in range(100):
        segments.prepare(Batch(["1"], np.zeros((1, 2), np.float32), [f'{{"label":"dropped {step}"}}']))
        labelled(segments, numbers(0, 8), f"label {step}")
        columns = [segment.columns["label"] for segment in segments.view()]
        assert all(isinstance(column, StringColumn) for column in columns)
        assert sum(len(column._strings) for column in columns if isinstance(column, StringColumn)) <= 8


@pytest.mark.parametrize(("storage", "share"), [(Storage.FLOAT32, 1), (Storage.FLOAT16, 2)])
def test_a_segment_is_bounded_in_bytes(storage: Storage, share: int) -> None:
    """float16 takes half: what is converted at once is bounded as float32."""
    segments = Segments(65_536, storage=storage)
    count = 2 * MAX_SEGMENT_BYTES // (4 * 65_536)
    ids = numbers(0, count)
    segments.publish(segments.prepare(Batch(ids, np.zeros((count, 65_536), np.float32), ["{}"] * count)))
    assert [segment.vectors.nbytes for segment in segments.view()] == [MAX_SEGMENT_BYTES // share] * 2
