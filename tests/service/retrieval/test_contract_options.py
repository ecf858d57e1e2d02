"""What every engine does, by the docstrings of `Index`: filters, search options, pages, taking a place."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import CollectionExists, CollectionNotFound, InvalidRequest, RequestError
from service.retrieval.filters import And, Equals, Exists, Filter, In, Not, Or, Range, matches
from service.retrieval.index import CollectionSpec, GroupBy, Index, Item, Metric, SearchOptions, Storage
from service.retrieval.schema import AttributeType, AttributeValue
from tests.service.retrieval.conftest import Opener

SCHEMA = {
    "label": AttributeType.STRING,
    "size": AttributeType.INT,
    "ratio": AttributeType.FLOAT,
    "good": AttributeType.BOOL,
    'it\'s "odd"': AttributeType.STRING,
}
SPEC = CollectionSpec("photos", 2, Metric.L2, "m:fp32", SCHEMA)
Attributes = dict[str, AttributeValue]
# Strings whose order by code point is not that of any language, nor of UTF-16.
LABELS = ["", "B", "a", "aa", "b", "e\u0301", "\u00e9", "z", "\ud7ff", "\ufffd", "\U0001f5bc"]
ROWS: list[Attributes] = [
    {},
    {"size": 0, "good": False, "ratio": -0.0, "label": ""},
    {"size": 2**63 - 1, "ratio": 1.5, "label": "B", 'it\'s "odd"': "x"},
    {"size": -(2**63), "ratio": 1e300, "label": "a", "good": True},
    {"size": 2**53 + 1, "ratio": float(2**53), "label": "aa"},
    {"size": 2**53, "ratio": -1e-300, "label": "b", 'it\'s "odd"': "'; DROP TABLE items; --"},
    {"label": "e\u0301", "good": True},
    {"label": "\u00e9", "good": False, "undeclared": "here"},
    {"label": "z", "size": 7},
    {"label": "\ud7ff", "size": 7, "good": True},
    {"label": "\ufffd", "size": 8},
    {"label": "\U0001f5bc", "size": 9, "ratio": 7.0},
]
FILTERS: list[Filter] = [
    *(Equals("label", label) for label in [*LABELS, "nobody"]),
    *(Range("label", gt=label) for label in LABELS),
    *(Range("label", lte=label) for label in LABELS),
    Range("label", gte="a", lt="b"),
    Range("label", gt="b", lt="a"),
    In("label", ()),
    In("label", ("B", "nobody", "z", "B")),
    Equals("size", 7),
    Equals("size", 2**53),
    Equals("size", 2**53 + 1),
    Equals("size", 2**63 - 1),
    Range("size", gt=2**53),
    Range("size", gte=-(2**63), lt=7),
    Range("size", gt=6, gte=7, lt=9, lte=8),
    In("size", (2**63 - 1, -(2**63), 8)),
    Equals("ratio", 7),
    Equals("ratio", 0.0),
    Equals("ratio", 2**53 + 1),
    Range("ratio", lt=0),
    Range("ratio", gte=1.5, lt=1e300),
    In("ratio", (7, 1.5)),
    Equals("good", True),
    Equals("good", False),
    In("good", (True, False)),
    Exists("label"),
    Exists("size"),
    Exists("good"),
    Equals('it\'s "odd"', "'; DROP TABLE items; --"),
    Range('it\'s "odd"', gte="x"),
    Not(Equals("good", True)),
    Not(Range("size", gt=7)),
    Not(Exists("label")),
    Not(In("label", ())),
    Not(Not(Equals("size", 7))),
    And(()),
    Or(()),
    Not(And(())),
    And((Equals("size", 7), Not(Exists("good")))),
    Or((Equals("good", True), Range("ratio", gt=1), And((Exists("size"), Not(Exists("ratio")))))),
    And((Or((Equals("size", 7), Equals("size", 8))), Not(Equals("label", "z")), Exists("label"))),
    And((Exists("label"), Not(Range("label", gte="a")))),
]


def f32(*values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def fill(index: Index, rows: Sequence[Attributes] = ROWS, spec: CollectionSpec = SPEC) -> None:
    """Item n lies n from the origin."""
    index.create(spec)
    index.upsert("photos", [Item(str(n), f32(n, 0), attributes) for n, attributes in enumerate(rows)])


def ids(index: Index, query: float = 0, top_k: int = 100, **options: Any) -> list[str]:
    [neighbors] = index.search("photos", f32([query, 0]), top_k, options=SearchOptions(**options))
    return [neighbor.id for neighbor in neighbors]


def test_a_filter_keeps_what_it_says(index: Index) -> None:
    """In search, count and scan alike; the reference is `matches`."""
    fill(index)
    for condition in FILTERS:
        kept = [str(n) for n, attributes in enumerate(ROWS) if matches(condition, attributes)]
        assert ids(index, filter=condition) == kept, condition
        assert ids(index, filter=condition, top_k=2) == kept[:2], condition
        assert index.count("photos", condition) == len(kept), condition
        assert [item.id for item in index.scan("photos", condition=condition)] == sorted(kept), condition


def test_filters_keep_the_same_after_a_restart(open_engine: Opener, tmp_path: Path) -> None:
    index = open_engine(tmp_path)
    fill(index)
    before = [ids(index, filter=condition) for condition in FILTERS]
    index.close()
    index = open_engine(tmp_path)
    assert [ids(index, filter=condition) for condition in FILTERS] == before
    index.close()


def test_a_filter_sees_the_attributes_as_they_are_now(index: Index) -> None:
    fill(index, [{"label": "cat"}, {"label": "cat"}, {"label": "dog"}])
    index.upsert("photos", [Item("0", f32(0, 0), {"label": "dog"}), Item("3", f32(3, 0), {"label": "cat"})])
    index.upsert("photos", [Item("1", f32(1, 0))])
    assert ids(index, filter=Equals("label", "cat")) == ["3"]
    assert ids(index, filter=Equals("label", "dog")) == ["0", "2"]
    assert ids(index, filter=Not(Exists("label"))) == ["1"]
    index.delete("photos", ["2"])
    assert index.count("photos", Equals("label", "dog")) == 1


@pytest.mark.parametrize("kept", [1, 60, 399])
@pytest.mark.parametrize("count", [1, 16])
@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("storage", list(Storage))
def test_however_much_a_filter_keeps_the_nearest_of_it_are_found(
    index: Index, kept: int, count: int, metric: Metric, storage: Storage
) -> None:
    rng = np.random.default_rng(kept)
    vectors = rng.standard_normal((400, 16)).astype(np.float32)
    queries = rng.standard_normal((count, 16)).astype(np.float32)
    index.create(CollectionSpec("photos", 16, metric, "", {"n": AttributeType.INT}, storage))
    numbers = rng.permutation(400)
    index.upsert("photos", [Item(str(n), vectors[n], {"n": int(numbers[n])}) for n in range(400)])
    gone = [str(n) for n in rng.choice(400, 60, replace=False)]
    index.delete("photos", gone)
    options = SearchOptions(filter=Range("n", lt=kept), recall=1)
    left = [n for n in range(400) if numbers[n] < kept and str(n) not in gone]
    wide = (vectors.astype(np.float16) if storage is Storage.FLOAT16 else vectors)[left].astype(np.float64)
    if metric is Metric.COSINE:
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for query, neighbors in zip(queries, index.search("photos", queries, 10, options=options), strict=True):
        truth = -np.linalg.norm(wide - query, axis=1) if metric is Metric.L2 else wide @ query
        best = np.argsort(-truth, kind="stable")[:10]
        scores = [neighbor.score for neighbor in neighbors]
        # A cosine of float16 is of vectors that were made length 1 first and rounded then.
        np.testing.assert_allclose(scores, truth[best], atol=1e-3 if storage is Storage.FLOAT16 else 1e-4)
        if storage is Storage.FLOAT32:
            assert [neighbor.id for neighbor in neighbors] == [str(left[n]) for n in best]


BAD_FILTERS: dict[str, tuple[Any, str]] = {
    "unknown": (
        Equals("colour", "red"),
        "asks for attribute 'colour'; expected one that the collection decl",
    ),
    "undeclared": (Exists("undeclared"), "expected one that the collection declares: .*good, .*label"),
    "type": (Equals("size", "7"), "compares attribute 'size' with '7'; expected an int of 64 bits"),
    "bool for int": (Equals("size", True), "'size' with True; expected an int"),
    "int for bool": (Equals("good", 1), "'good' with 1; expected a bool"),
    "float for int": (In("size", (1, 1.5)), "'size' with 1.5; expected an int"),
    "nan": (Equals("ratio", float("nan")), "'ratio' with nan; expected a finite float"),
    "inf": (Range("ratio", lt=float("inf")), "'ratio' with inf; expected a finite float"),
    "large": (Range("size", lt=2**63), "'size' with 9223372036854775808; expected an int"),
    "large for float": (Range("ratio", lt=2**63), "expected a finite float"),
    "no UTF-8": (Equals("label", "\ud800"), "expected a string of UTF-8"),
    "no bounds": (Range("size"), "range of attribute 'size' has no bounds; expected one of gt, gte, lt and"),
    "a range of bools": (Range("good", gt=False), "range of attribute 'good', which is a bool"),
    "inside": (Not(And((Exists("size"), Or((Equals("x", 1),))))), "asks for attribute 'x'"),
}


def deep(levels: int) -> Filter:
    condition: Filter = Exists("size")
    for _ in range(levels - 1):
        condition = Not(condition)
    return condition


BAD_FILTERS["too deep"] = (deep(17), "deeper than 16 levels")
BAD_FILTERS["too many"] = (Or((Exists("size"),) * 256), "more than 256 conditions")
BAD_FILTERS["too many values"] = (In("size", tuple(range(10_001))), "lists 10,001 values; expected at most")


@pytest.mark.parametrize("case", BAD_FILTERS)
def test_a_bad_filter_is_refused_everywhere(index: Index, case: str) -> None:
    condition, message = BAD_FILTERS[case]
    fill(index)
    calls: list[Any] = [
        lambda: ids(index, filter=condition),
        lambda: index.count("photos", condition),
        lambda: index.scan("photos", condition=condition),
        lambda: index.delete_matching("photos", condition),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match=message):
            call()
    assert index.count("photos") == len(ROWS)


def test_filters_at_the_limit_are_answered(index: Index) -> None:
    fill(index)
    assert index.count("photos", deep(15)) == sum("size" in row for row in ROWS)
    assert index.count("photos", deep(16)) == sum("size" not in row for row in ROWS)
    assert index.count("photos", And((Exists("size"),) * 255)) == sum("size" in row for row in ROWS)
    assert index.count("photos", In("size", tuple(range(10_000)))) == 5
    assert index.count("photos", In("label", (*map(str, range(9_999)), "z"))) == 1


def test_delete_matching_counts_and_is_final(open_engine: Opener, tmp_path: Path) -> None:
    index = open_engine(tmp_path)
    fill(index)
    assert index.delete_matching("photos", Equals("label", "nobody")) == 0
    assert index.delete_matching("photos", Or(())) == 0
    gone = Or((Range("size", gte=7, lte=8), Not(Exists("label"))))
    assert index.delete_matching("photos", gone) == 4
    left = [str(n) for n in range(12) if n not in (0, 8, 9, 10)]
    for _ in range(2):
        assert ids(index) == left
        assert index.count("photos") == len(left)
        assert [item.id for item in index.get("photos", ["8", "0", "7"])] == ["7"]
        assert index.delete_matching("photos", gone) == 0
        index.close()
        index = open_engine(tmp_path)
    assert index.delete_matching("photos", And(())) == len(left)
    assert index.count("photos") == 0
    index.upsert("photos", [Item("8", f32(1, 0), {"size": 7})])
    assert ids(index, filter=Equals("size", 7)) == ["8"]
    index.close()


def test_a_minimum_score_leaves_out_what_is_farther(index: Index) -> None:
    fill(index)
    assert ids(index, min_score=-3) == ["0", "1", "2", "3"]  # at least: the bound itself is in
    assert ids(index, min_score=-2.5) == ["0", "1", "2"]
    assert ids(index, min_score=-2.5, top_k=2) == ["0", "1"]
    assert ids(index, min_score=0.5) == []
    assert ids(index, min_score=-1e300) == [str(n) for n in range(12)]
    assert ids(index, min_score=-3, filter=Exists("size")) == ["1", "2", "3"]


def test_an_offset_turns_the_page(index: Index) -> None:
    fill(index)
    pages = [ids(index, top_k=5, offset=offset) for offset in (0, 5, 10, 12, 1_000_000)]
    assert pages == [list("01234"), list("56789"), ["10", "11"], [], []]
    assert ids(index, top_k=2, offset=1, filter=Equals("size", 7)) == ["9"]
    assert ids(index, offset=2, min_score=-3) == ["2", "3"]


GROUPED: list[Attributes] = [
    {"label": "a", "size": 1, "good": True},
    {"label": "a", "size": 2, "good": True},
    {"size": 1},
    {"label": "a"},
    {"label": "b", "ratio": 1.0},
    {"size": 2},
    {"label": "b", "ratio": 1.0},
    {"label": "", "good": False},
    {"label": ""},
    {"label": "a"},
]


def test_groups_are_limited(index: Index) -> None:
    fill(index, GROUPED)
    assert ids(index, group_by=GroupBy("label")) == ["0", "2", "4", "5", "7"]
    assert ids(index, group_by=GroupBy("label", 2)) == ["0", "1", "2", "4", "5", "6", "7", "8"]
    assert ids(index, group_by=GroupBy("label"), top_k=3) == ["0", "2", "4"]
    assert ids(index, group_by=GroupBy("label"), top_k=2, offset=1) == ["2", "4"]
    assert ids(index, group_by=GroupBy("size")) == ["0", "1", "3", "4", "6", "7", "8", "9"]
    assert ids(index, group_by=GroupBy("ratio")) == ["0", "1", "2", "3", "4", "5", "7", "8", "9"]
    assert ids(index, group_by=GroupBy("good")) == ["0", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert ids(index, group_by=GroupBy("label"), filter=Exists("label")) == ["0", "4", "7"]
    assert ids(index, group_by=GroupBy("label"), min_score=-4.5, filter=Exists("label")) == ["0", "4"]


def test_groups_are_looked_for_behind_a_large_one(index: Index) -> None:
    """The nearest 300 are of one group: an engine that looks at a few times top_k finds one item."""
    labels = ["near"] * 300 + [f"far {n % 3}" for n in range(60)]
    fill(index, [{"label": label} for label in labels])
    expected = ["0", "300", "301", "302"]
    assert ids(index, group_by=GroupBy("label"), top_k=4) == expected
    assert ids(index, group_by=GroupBy("label"), top_k=9) == expected
    assert ids(index, group_by=GroupBy("label"), top_k=2, offset=2) == expected[2:]
    assert ids(index, group_by=GroupBy("label", 300), top_k=2, offset=299) == ["299", "300"]


def test_options_hold_for_each_query_and_with_an_item_left_out(index: Index) -> None:
    fill(index, GROUPED)
    queries = f32([0, 0], [9, 0], [4, 0])
    options = SearchOptions(group_by=GroupBy("label"), filter=Exists("label"), min_score=-5.5)
    results = index.search("photos", queries, 3, options=options, excluded_ids=["0", None, "4"])
    assert [[neighbor.id for neighbor in neighbors] for neighbors in results] == [
        ["1", "4"],
        ["9", "8", "6"],
        ["3", "6", "7"],
    ]
    options = SearchOptions(offset=1)
    results = index.search("photos", queries[:1], 2, options=options, excluded_ids=["1"])
    assert [neighbor.id for neighbor in results[0]] == ["2", "3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": float("nan")}, "min_score is nan; expected a finite number"),
        ({"min_score": float("inf")}, "min_score is inf; expected a finite number"),
        ({"group_by": GroupBy("x")}, "group_by names attribute 'x'; expected one that the collection decla"),
        ({"group_by": GroupBy("label", 0)}, "max_per_group 0; expected at least 1"),
        ({"offset": -1}, "offset is -1; expected 0 or more"),
        ({"recall": 0.0}, "recall is 0.0; expected above 0, and at most 1"),
        ({"recall": 1.01}, "recall is 1.01; expected above 0, and at most 1"),
        ({"recall": float("nan")}, "recall is nan; expected above 0"),
    ],
)
def test_bad_options_are_refused(index: Index, options: dict[str, Any], message: str) -> None:
    fill(index)
    with pytest.raises(InvalidRequest, match=message):
        ids(index, **options)


@pytest.mark.parametrize("recall", [0.01, 0.5, 1])
def test_any_recall_finds_the_one_item(index: Index, recall: float) -> None:
    fill(index, [{}])
    assert ids(index, recall=recall) == ["0"]


def test_recall_one_looks_at_every_item(index: Index) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((500, 32)).astype(np.float32)
    queries = rng.standard_normal((4, 32)).astype(np.float32)
    index.create(CollectionSpec("photos", 32, Metric.L2, ""))
    index.upsert("photos", [Item(str(n), vector) for n, vector in enumerate(vectors)])
    index.flush("photos")
    for query, neighbors in zip(
        queries, index.search("photos", queries, 20, options=SearchOptions(recall=1)), strict=True
    ):
        distances = np.linalg.norm(vectors - query, axis=1)
        assert [neighbor.id for neighbor in neighbors] == [str(n) for n in np.argsort(distances)[:20]]


def test_equally_near_items_come_in_the_order_of_writing(open_engine: Opener, tmp_path: Path) -> None:
    order = ["m", "z", "a", "é", "10", "9", "b"]
    index = open_engine(tmp_path)
    index.create(CollectionSpec("photos", 2, Metric.COSINE, "", {"kept": AttributeType.BOOL}))
    for name in ["b", *order]:  # "b" again: written last
        index.upsert("photos", [Item(name, f32(3, 4), {"kept": True})])
    index.upsert("photos", [Item("other", f32(1, 0), {"kept": False})])
    for _ in range(2):
        assert ids(index, query=1) == ["other", *order]
        assert ids(index, query=1, filter=Equals("kept", True)) == order
        assert ids(index, query=1, top_k=3, offset=2) == order[1:4]
        index.close()
        index = open_engine(tmp_path)
    index.close()


SCANNED = ["", "B", "a", "aa", "e\u0301", "\u00e9", "\ud7ff", "\ufffd", "\U0001f5bc", "\U0001f5bc\u200d"]


def test_a_scan_pages_in_the_order_of_ids(index: Index) -> None:
    index.create(SPEC)
    names = SCANNED[1:]
    for n, name in reversed(list(enumerate(names))):
        index.upsert("photos", [Item(name, f32(n, -n), {"size": n})])
    whole = index.scan("photos")
    assert [item.id for item in whole] == names
    assert [item.attributes for item in whole] == [{"size": n} for n in range(len(names))]
    for n, item in enumerate(whole):
        assert item.vector.dtype == np.float32
        np.testing.assert_array_equal(item.vector, [n, -n])
    after, pages = "", []
    while page := [item.id for item in index.scan("photos", after=after, limit=4)]:
        pages.append(page)
        after = page[-1]
    assert pages == [names[:4], names[4:8], names[8:]]
    assert [item.id for item in index.scan("photos", after="aaa")] == names[3:]  # needn't be there
    assert index.scan("photos", after=names[-1]) == []
    [item] = index.scan("photos", limit=1, include_vectors=False)
    assert (item.id, item.vector.shape, item.vector.dtype.name) == ("B", (0,), "float32")


def test_a_scan_shows_items_as_they_stand(index: Index) -> None:
    fill(index)
    index.scan("photos", limit=1)
    index.delete("photos", ["10", "3"])
    index.upsert("photos", [Item("2", f32(0, 5), {"size": 1}), Item("05", f32(0, 0))])
    items = index.scan("photos", limit=7)
    assert [item.id for item in items] == ["0", "05", "1", "11", "2", "4", "5"]
    assert items[4].attributes == {"size": 1}
    np.testing.assert_array_equal(items[4].vector, [0, 5])


@pytest.mark.parametrize("share", [3, 150])
def test_a_scan_with_a_filter_skips_the_others(index: Index, share: int) -> None:
    """Of many items one in `share`, by pages of 2."""
    index.create(SPEC)
    names = [f"{n:03}" for n in range(600)]
    index.upsert("photos", [Item(name, f32(n, 0), {"good": n % share == 1}) for n, name in enumerate(names)])
    after, seen = "", list[str]()
    while page := index.scan("photos", after=after, limit=2, condition=Equals("good", True)):
        assert len(page) <= 2
        seen += [item.id for item in page]
        after = seen[-1]
    assert seen == names[1::share]


def test_a_scan_ends_before_its_reply_would_be_too_large(index: Index) -> None:
    fill(index)
    texts = [
        json.dumps(ROWS[int(item.id)], ensure_ascii=False, separators=(",", ":"))
        for item in index.scan("photos")
    ]
    sizes = [
        len(item.id) + len(text.encode()) + 2 * 4
        for item, text in zip(index.scan("photos"), texts, strict=True)
    ]
    scan = partial(index.scan, "photos")
    for count in (1, 2, 5, 12):
        assert len(scan(max_reply_bytes=sum(sizes[:count]))) == count
        assert len(scan(max_reply_bytes=sum(sizes[:count]) - 1)) == max(1, count - 1)
    assert len(scan(max_reply_bytes=0)) == 1
    without = sum(sizes[:5]) - 5 * 8
    assert len(scan(max_reply_bytes=without, include_vectors=False)) == 5


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_bad_limit_is_refused(index: Index, limit: Any) -> None:
    fill(index)
    with pytest.raises(InvalidRequest, match=f"limit is {limit}; expected a whole number of at least 1"):
        index.scan("photos", limit=limit)


def test_a_page_after_no_text_is_refused(index: Index) -> None:
    fill(index)
    with pytest.raises(InvalidRequest, match=r"the page is after .*ud800'; expected an id of UTF-8"):
        index.scan("photos", after="\ud800")
    assert index.scan("photos", after="\U0010ffff" * 128) == []


def test_items_are_those_of_one_moment_in_the_order_of_writing(index: Index) -> None:
    fill(index)
    index.upsert("photos", [Item("3", f32(30, 0), {"size": 30})])
    order = [*(str(n) for n in range(12) if n != 3), "3"]
    with index.items("photos") as pages:
        first = next(iter(pages))
        index.upsert("photos", [Item(str(n), f32(n, 99)) for n in range(6, 40)])
        index.delete("photos", ["0", "11"])
        index.delete_matching("photos", Exists("size"))
        items = [*first, *(item for page in pages for item in page)]
    assert [item.id for item in items] == order
    assert [item.attributes for item in items] == [*(ROWS[int(name)] for name in order[:-1]), {"size": 30}]
    np.testing.assert_array_equal(
        [item.vector for item in items], [[int(n), 0] for n in order[:-1]] + [[30, 0]]
    )
    with index.items("photos") as pages:
        assert next(iter(pages))
    index.upsert("photos", [Item("late", f32(0, 0))])  # leaving early holds nothing back
    index.create(CollectionSpec("empty", 2, Metric.L2, ""))
    with index.items("empty") as pages:
        assert [item for page in pages for item in page] == []


def test_replace_takes_name_and_items(open_engine: Opener, tmp_path: Path) -> None:
    index = open_engine(tmp_path)
    fill(index)
    new = CollectionSpec("new", 3, Metric.COSINE, "m2:int8", {"size": AttributeType.INT}, Storage.FLOAT16)
    index.create(new)
    index.upsert("new", [Item("n", f32(1, 0, 0), {"size": 5}), Item("o", f32(0, 1, 0))])
    index.replace("photos", "new")
    for _ in range(2):
        assert [info.spec.name for info in index.list_collections()] == ["photos"]
        info = index.describe("photos")
        assert (info.spec, info.count) == (
            CollectionSpec(
                "photos", 3, Metric.COSINE, "m2:int8", {"size": AttributeType.INT}, Storage.FLOAT16
            ),
            2,
        )
        [neighbors] = index.search("photos", f32([1, 0, 0]), 5)
        assert [(neighbor.id, neighbor.attributes) for neighbor in neighbors] == [
            ("n", {"size": 5}),
            ("o", {}),
        ]
        assert index.count("photos", Exists("size")) == 1
        assert index.get("photos", ["0"]) == []
        with pytest.raises(CollectionNotFound, match="'new'"):
            index.count("new")
        index.close()
        index = open_engine(tmp_path)
    index.create(new)  # the name is free again
    index.upsert("photos", [Item("p", f32(0, 0, 1))])
    assert (index.count("photos"), index.count("new")) == (3, 0)
    with pytest.raises(RequestError):
        index.replace("photos", "photos")
    assert index.count("photos") == 3
    index.close()


def test_rename_takes_a_free_name(open_engine: Opener, tmp_path: Path) -> None:
    index = open_engine(tmp_path)
    fill(index)
    index.create(CollectionSpec("art", 2, Metric.L2, ""))
    with pytest.raises(CollectionExists, match="'art'"):
        index.rename("photos", "art")
    with pytest.raises(CollectionExists, match="'photos'"):
        index.rename("photos", "photos")
    with pytest.raises(InvalidRequest, match="1 to 128 letters"):
        index.rename("photos", "a/b")
    index.rename("photos", "pictures")
    for _ in range(2):
        assert [info.spec.name for info in index.list_collections()] == ["art", "pictures"]
        assert index.count("pictures") == len(ROWS)
        with pytest.raises(CollectionNotFound, match="'photos'"):
            index.search("photos", f32([0, 0]), 1)
        index.close()
        index = open_engine(tmp_path)
    fill(index)
    index.delete("photos", ["1"])
    assert (index.count("photos"), index.count("pictures")) == (len(ROWS) - 1, len(ROWS))
    index.close()


def test_flush_changes_nothing_that_is_found(index: Index) -> None:
    fill(index)
    before = ids(index)
    index.flush("photos")
    index.flush("photos")
    assert ids(index) == before
    index.upsert("photos", [Item("new", f32(-1, 0))])
    index.delete("photos", ["5"])
    index.flush("photos")
    assert ids(index, query=-1)[:2] == ["new", "0"]
    assert "5" not in ids(index)
