"""What every engine does, by the docstrings of `Index`: collections, items, plain searches, bad input.

test_contract_options.py has filters, search options, pages and taking another's place.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import (
    CollectionExists,
    CollectionNotFound,
    InvalidRequest,
    RequestError,
    VectorMismatch,
)
from service.retrieval.collection_names import BUILDING_PREFIX
from service.retrieval.filters import Equals, Exists
from service.retrieval.index import CollectionSpec, Index, Item, Metric, Storage
from service.retrieval.schema import AttributeType, AttributeValue
from tests.service.retrieval.conftest import MAX_ATTRIBUTES, MAX_DIMENSION, Opener


def f32(*values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def make(index: Index, metric: Metric = Metric.INNER_PRODUCT, dimension: int = 2) -> None:
    index.create(CollectionSpec("photos", dimension, metric, "m:fp32"))


def found(index: Index, *query: float, top_k: int = 10) -> list[tuple[str, float]]:
    [neighbors] = index.search("photos", f32(query), top_k)
    return [(neighbor.id, round(neighbor.score, 4)) for neighbor in neighbors]


def sizes(index: Index) -> list[tuple[CollectionSpec, int]]:
    """What there is; how each is searched is the engine's own affair."""
    return [(info.spec, info.count) for info in index.list_collections()]


def test_create_describe_list_and_drop(index: Index) -> None:
    assert index.list_collections() == []
    photos = CollectionSpec("photos", 2, Metric.L2, "m:fp32")
    art = CollectionSpec("art.v1_a-b", 3, Metric.COSINE, "")
    index.create(photos)
    index.create(art)
    index.upsert("photos", [Item("a", f32(1, 2))])
    info = index.describe("photos")
    assert (info.spec, info.count) == (photos, 1)
    assert info.index_type
    assert sizes(index) == [(art, 0), (photos, 1)]
    index.drop("photos")
    assert sizes(index) == [(art, 0)]
    index.create(photos)
    assert index.count("photos") == 0


def test_a_taken_name_is_refused(index: Index) -> None:
    make(index)
    with pytest.raises(CollectionExists, match="'photos'"):
        make(index, dimension=7)
    assert index.describe("photos").spec.dimension == 2


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "é", "a/b", "a\n", "a" * 129, 7])
def test_a_bad_name_is_refused(index: Index, name: Any) -> None:
    with pytest.raises(InvalidRequest, match="1 to 128 letters"):
        index.create(CollectionSpec(name, 2, Metric.L2, ""))


@pytest.mark.parametrize("dimension", [0, -1, 65_537, 2.0, True])
def test_a_bad_dimension_is_refused(index: Index, dimension: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=f"dimension {dimension}; expected a whole number from 1 to 65,536"
    ):
        index.create(CollectionSpec("photos", dimension, Metric.L2, ""))


def test_names_and_dimensions_at_the_limit(index: Index, engine: str) -> None:
    dimension = MAX_DIMENSION.get(engine, 65_536)
    index.create(CollectionSpec("a" * 128, dimension, Metric.L2, "f" * 512))
    index.upsert("a" * 128, [Item(str(n), np.full(dimension, n, np.float32)) for n in range(3)])
    [[neighbor]] = index.search("a" * 128, np.full((1, dimension), 1.25, np.float32), 1)
    assert neighbor.id == "1"
    assert neighbor.score == pytest.approx(-0.25 * dimension**0.5, rel=1e-6)


def test_a_dimension_beyond_the_engines_own_limit_is_refused(index: Index, engine: str) -> None:
    if engine not in MAX_DIMENSION:
        return  # 65,537 is among the bad ones above
    dimension = MAX_DIMENSION[engine] + 1
    with pytest.raises(InvalidRequest, match=f"dimension {dimension}"):
        index.create(CollectionSpec("photos", dimension, Metric.L2, ""))


@pytest.mark.parametrize("fingerprint", ["f" * 513, "\ud800", "a\0b", None])
def test_a_bad_fingerprint_is_refused(index: Index, fingerprint: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"fingerprint .* expected at most 512 bytes"):
        index.create(CollectionSpec("photos", 2, Metric.L2, fingerprint))


def test_an_unknown_collection_is_told_with_those_there_are(index: Index) -> None:
    with pytest.raises(CollectionNotFound, match="'photos'; there are: none"):
        index.count("photos")
    make(index)
    index.create(CollectionSpec("art", 2, Metric.L2, ""))
    calls: list[Any] = [
        lambda: index.drop("x"),
        lambda: index.describe("x"),
        lambda: index.upsert("x", [Item("a", f32(1, 2))]),
        lambda: index.delete("x", ["a"]),
        lambda: index.get("x", ["a"]),
        lambda: index.count("x"),
        lambda: index.search("x", f32([1, 2]), 1),
        lambda: index.vectors("x", ["a"]),
        lambda: index.delete_matching("x", Exists("n")),
        lambda: index.count("x", Exists("n")),
        lambda: index.scan("x"),
        lambda: index.items("x").__enter__(),
        lambda: index.flush("x"),
        lambda: index.replace("x", "photos"),
        lambda: index.replace("photos", "x"),
        lambda: index.rename("x", "y"),
    ]
    for call in calls:
        with pytest.raises(CollectionNotFound, match="'x'; there are: art, photos"):
            call()
    assert sizes(index) == [
        (CollectionSpec("art", 2, Metric.L2, ""), 0),
        (CollectionSpec("photos", 2, Metric.INNER_PRODUCT, "m:fp32"), 0),
    ]


def test_what_is_being_built_is_none_of_those_there_are(index: Index) -> None:
    make(index)
    index.create(CollectionSpec(f"{BUILDING_PREFIX}5f.0a", 2, Metric.L2, ""))
    for call in (index.describe, index.drop):
        with pytest.raises(CollectionNotFound, match=r"'x'; there are: photos$"):
            call("x")


def test_cosine_compares_directions(index: Index) -> None:
    make(index, Metric.COSINE)
    index.upsert(
        "photos", [Item("east", f32(100, 0)), Item("north", f32(0, 1e-30)), Item("west", f32(-3, 0))]
    )
    assert found(index, 3e30, 4e30) == [("north", 0.8), ("east", 0.6), ("west", -0.6)]
    np.testing.assert_allclose(index.get("photos", ["east"])[0].vector, [1, 0])


def test_inner_product_weighs_length(index: Index) -> None:
    make(index)
    index.upsert("photos", [Item("short", f32(1, 0)), Item("long", f32(5, 5)), Item("zero", f32(0, 0))])
    assert found(index, 2, -1) == [("long", 5), ("short", 2), ("zero", 0)]


def test_l2_scores_minus_the_distance(index: Index) -> None:
    make(index, Metric.L2)
    index.upsert("photos", [Item("far", f32(3, 4)), Item("here", f32(0, 0))])
    assert found(index, 0, 0) == [("here", 0), ("far", -5)]


def test_each_query_has_its_own_result(index: Index) -> None:
    make(index)
    index.upsert("photos", [Item(str(n), f32(np.cos(n), np.sin(n))) for n in range(6)])
    queries = np.stack([f32(np.cos(n), np.sin(n)) for n in range(6)])
    assert [result[0].id for result in index.search("photos", queries, 2)] == list("012345")
    assert index.search("photos", queries[:0], 2) == []


def test_top_k_beyond_the_collection_returns_all(index: Index) -> None:
    make(index)
    assert found(index, 1, 1) == []
    index.upsert("photos", [Item(str(n), f32(n, 0)) for n in range(8)])
    assert [name for name, _ in found(index, 1, 0, top_k=1000)] == list("76543210")
    assert [name for name, _ in found(index, 1, 0, top_k=2)] == ["7", "6"]


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True])
def test_a_bad_top_k_is_refused(index: Index, top_k: Any) -> None:
    make(index)
    with pytest.raises(InvalidRequest, match=f"top_k is {top_k}; expected a whole number of at least 1"):
        index.search("photos", f32([1, 2]), top_k)


def test_upsert_replaces_vector_and_attributes(index: Index) -> None:
    make(index)
    index.upsert("photos", [Item("a", f32(1, 0), {"label": "cat", "size": 1}), Item("b", f32(2, 0))])
    index.upsert("photos", [Item("a", f32(0, 1), {"label": "dog"})])
    assert index.count("photos") == 2
    assert found(index, 0, 1) == [("a", 1), ("b", 0)]
    [neighbors] = index.search("photos", f32([0, 1]), 1)
    assert neighbors[0].attributes == {"label": "dog"}
    assert index.get("photos", ["a"])[0].attributes == {"label": "dog"}


def test_of_items_with_one_id_the_last_is_kept(index: Index) -> None:
    make(index)
    index.upsert("photos", [Item("a", f32(n, 0), {"n": n}) for n in range(5)] + [Item("b", f32(9, 0))])
    assert found(index, 1, 0) == [("b", 9), ("a", 4)]
    assert index.get("photos", ["a"])[0].attributes == {"n": 4}


def test_delete_counts_and_is_final(index: Index) -> None:
    make(index)
    index.upsert("photos", [Item(str(n), f32(n, 0)) for n in range(10)])
    assert index.delete("photos", ["9", "3", "nobody", "9", "", "\ud800"]) == 2
    assert index.delete("photos", ["9"]) == 0
    assert index.delete("photos", []) == 0
    assert [name for name, _ in found(index, 1, 0)] == list("87654210")
    assert [item.id for item in index.get("photos", ["9", "8"])] == ["8"]
    index.upsert("photos", [Item("9", f32(-1, 0))])
    assert found(index, 1, 0)[-1] == ("9", -1)
    assert index.delete("photos", [str(n) for n in range(10)]) == 9
    assert index.count("photos") == 0
    assert found(index, 1, 0) == []


def test_get_answers_in_the_order_asked(index: Index) -> None:
    make(index)
    index.upsert("photos", [Item(str(n), f32(n, -n)) for n in range(5)])
    items = index.get("photos", ["4", "nobody", "0", "4"])
    assert [item.id for item in items] == ["4", "0", "4"]
    assert items[0].vector.dtype == np.float32
    np.testing.assert_array_equal(items[0].vector, [4, -4])
    items[0].vector[:] = 0  # the caller's own
    np.testing.assert_array_equal(index.get("photos", ["4"])[0].vector, [4, -4])


def test_get_without_vectors_leaves_them_empty(index: Index) -> None:
    make(index)
    index.upsert("photos", [Item("a", f32(1, 2), {"n": 1})])
    [item] = index.get("photos", ["a"], include_vectors=False)
    assert (item.id, item.attributes) == ("a", {"n": 1})
    assert item.vector.dtype == np.float32
    assert item.vector.shape == (0,)


def test_vectors_are_those_stored(index: Index) -> None:
    make(index, Metric.COSINE)
    index.upsert("photos", [Item("a", f32(3, 4)), Item("b", f32(0, 2))])
    vectors = index.vectors("photos", ["b", "nobody", "a", "b"])
    assert sorted(vectors) == ["a", "b"]
    np.testing.assert_allclose(vectors["a"], [0.6, 0.8], rtol=1e-6)
    vectors["b"][:] = 0  # the caller's own
    np.testing.assert_array_equal(index.vectors("photos", ["b"])["b"], [0, 1])


def test_each_query_may_leave_an_item_out(index: Index) -> None:
    make(index, Metric.L2)
    index.upsert("photos", [Item(str(n), f32(n, 0)) for n in range(6)])
    queries = f32([0, 0], [0, 0], [5, 0], [0, 0])
    results = index.search("photos", queries, 2, excluded_ids=["0", None, "5", "nobody"])
    assert [[neighbor.id for neighbor in result] for result in results] == [
        ["1", "2"],
        ["0", "1"],
        ["4", "3"],
        ["0", "1"],
    ]
    assert [len(result) for result in index.search("photos", queries[:1], 9, excluded_ids=["3"])] == [5]


def test_a_reply_of_exactly_the_limit_is_given(index: Index) -> None:
    """Ids and attributes in bytes of UTF-8 and 4 bytes a number, of each item as often as it comes."""
    make(index)
    index.upsert("photos", [Item("é", f32(1, 0), {"ü": "日"}), Item("b", f32(2, 0))])
    whole = len("é".encode()) + len('{"ü":"日"}'.encode()) + len("b") + len("{}")
    search = partial(index.search, "photos", f32([1, 0], [-1, 0], [1, 1]), 2)
    expected = 3 * (whole + 2 * 4)
    assert search(max_reply_bytes=expected) == search()
    with pytest.raises(InvalidRequest, match=f"would take {expected} bytes; expected at most {expected - 1}"):
        search(max_reply_bytes=expected - 1)
    # What is left out doesn't count.
    assert search(excluded_ids=["é"] * 3, max_reply_bytes=3 * (len("b") + len("{}") + 4))

    ids = ["é", "b", "nobody", "é", "b"]
    for include_vectors, expected in ((True, 2 * (whole + 2 * 2 * 4)), (False, 2 * whole)):
        get = partial(index.get, "photos", ids, include_vectors=include_vectors)
        assert len(get(max_reply_bytes=expected)) == 4
        with pytest.raises(InvalidRequest, match=f"{expected} bytes; .*{expected - 1}: ask for fewer ids"):
            get(max_reply_bytes=expected - 1)


def test_the_index_keeps_no_view_of_the_callers_vector(index: Index) -> None:
    make(index)
    vector = f32(1, 2)
    index.upsert("photos", [Item("a", vector)])
    vector[:] = 9
    np.testing.assert_array_equal(index.get("photos", ["a"])[0].vector, [1, 2])


def test_collections_are_apart(index: Index) -> None:
    make(index)
    index.create(CollectionSpec("art", 3, Metric.L2, ""))
    index.upsert("photos", [Item("a", f32(1, 2))])
    index.upsert("art", [Item("a", f32(1, 2, 3)), Item("b", f32(4, 5, 6))])
    index.delete("photos", ["a"])
    assert (index.count("photos"), index.count("art")) == (0, 2)
    index.drop("photos")
    assert [item.id for item in index.get("art", ["a", "b"])] == ["a", "b"]


ATTRIBUTES: dict[str, AttributeValue] = {
    "int": 1,
    "float": 1.0,
    "true": True,
    "zero": 0,
    "false": False,
    "big": 2**63 - 1,
    "small": -(2**63),
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "third": 1 / 3,
    "whole": 1e22,
    "negative zero": -0.0,
    "empty": "",
    "数字": "日本語 🖼\x00\n\"'\\",
    "looks like an int": "1",
}


def test_attributes_and_ids_survive_a_restart_with_their_types(open_engine: Opener, tmp_path: Path) -> None:
    ids = ["a", "é", "e\u0301", "日本語", "🖼\u200d️", "\x01", "\n", " ", "%_'\"", "x" * 512, "é" * 256]
    spec = CollectionSpec("photos", 2, Metric.COSINE, "m:fp32")
    for opening in range(3):
        index = open_engine(tmp_path)
        if opening == 0:
            index.create(spec)
            index.upsert("photos", [Item(name, f32(1, n), ATTRIBUTES) for n, name in enumerate(ids)])
        assert sizes(index) == [(spec, len(ids))]
        items = index.get("photos", ids)
        assert [item.id for item in items] == ids
        [neighbors] = index.search("photos", f32([0, 1]), 100)
        assert [neighbor.id for neighbor in neighbors] == ids[::-1]
        for attributes in [*(item.attributes for item in items), *(n.attributes for n in neighbors)]:
            assert attributes == ATTRIBUTES
            assert [type(value) for value in attributes.values()] == [type(v) for v in ATTRIBUTES.values()]
        index.close()
        index.close()


BAD_ITEMS = {
    "an empty id": (Item("", f32(1, 2)), "an item's id is ''; expected 1 to 512 bytes"),
    "a long id": (Item("x" * 513, f32(1, 2)), "an item's id is 'xxx"),
    "a long id in bytes": (Item("é" * 257, f32(1, 2)), "1 to 512 bytes"),
    "a zero byte": (Item("a\0b", f32(1, 2)), "1 to 512 bytes of UTF-8 without zero bytes"),
    "no UTF-8": (Item("\udc80", f32(1, 2)), "1 to 512 bytes of UTF-8"),
    "nan": (Item("a", f32(1, np.nan)), "item 'a' has nan at 1; expected finite"),
    "inf": (Item("a", f32(-np.inf, 1)), "item 'a' has -inf at 0; expected finite"),
    "beyond float32": (Item("a", np.array([1e300, 0])), "item 'a' has inf at 0"),
    "two axes": (Item("a", f32([1, 2])), r"of shape \[1, 2\]; expected float32 \[dimension\]"),
    "text": (Item("a", np.array(["1", "2"])), "is <U1 of shape"),
    "a list": (Item("a", f32(1, 2), {"x": [1]}), r"'a': attribute 'x' is \[1\]; expected"),  # type: ignore[dict-item] # meant
    "none": (Item("a", f32(1, 2), {"x": None}), "attribute 'x' is None; expected"),  # type: ignore[dict-item] # meant
    "a large int": (Item("a", f32(1, 2), {"x": 2**63}), "attribute 'x' is 9223372036854775808; expected"),
    "a nan attribute": (Item("a", f32(1, 2), {"x": np.nan}), "attribute 'x' is nan; expected"),
    "no UTF-8 value": (Item("a", f32(1, 2), {"x": "\ud800"}), "attribute 'x' is .* expected"),
    "no name": (Item("a", f32(1, 2), {"": 1}), "attribute '' is 1; expected a name"),
    "a number for a name": (Item("a", f32(1, 2), {1: 1}), "attribute 1 is 1; expected a name"),  # type: ignore[dict-item] # meant
    "large attributes": (
        Item("a", f32(1, 2), {"x": "y" * 65_536}),
        "take 65,544 bytes as JSON; expected at most 65,536",
    ),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_a_bad_item_is_refused_and_nothing_of_its_call_written(index: Index, case: str) -> None:
    item, message = BAD_ITEMS[case]
    make(index)
    index.upsert("photos", [Item("kept", f32(1, 1), {"x": 1})])
    with pytest.raises(InvalidRequest, match=message):
        index.upsert("photos", [Item("kept", f32(7, 7)), item, Item("new", f32(7, 7))])
    assert found(index, 1, 0) == [("kept", 1)]
    assert index.get("photos", ["kept"])[0].attributes == {"x": 1}


def test_attributes_of_exactly_the_limit_are_stored(index: Index) -> None:
    make(index)
    text = "y" * (65_536 - len('{"x":""}'))
    index.upsert("photos", [Item("a", f32(1, 2), {"x": text})])
    assert index.get("photos", ["a"])[0].attributes == {"x": text}


@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
def test_a_vector_too_long_to_compare_is_refused(index: Index, metric: Metric) -> None:
    make(index, metric)
    with pytest.raises(InvalidRequest, match=r"item 'a' has length 1e\+19; expected at most 1e\+18"):
        index.upsert("photos", [Item("a", f32(1e19, 0))])
    with pytest.raises(InvalidRequest, match=r"query 1 has length 1e\+19; expected at most 1e\+18"):
        index.search("photos", f32([1, 0], [1e19, 0]), 1)
    index.upsert("photos", [Item("a", f32(1e18, 0)), Item("b", f32(-1e18, 0))])
    assert [neighbor.id for neighbor in index.search("photos", f32([1e18, 0]), 2)[0]] == ["a", "b"]


def test_zero_has_no_cosine(index: Index) -> None:
    make(index, Metric.COSINE)
    with pytest.raises(InvalidRequest, match="item 'a' is zero; expected a direction"):
        index.upsert("photos", [Item("b", f32(1, 2)), Item("a", f32(0, 0))])
    with pytest.raises(InvalidRequest, match="query 1 is zero; expected a direction"):
        index.search("photos", f32([1, 2], [0, 0]), 1)
    assert index.count("photos") == 0


def test_long_values_are_cut_in_errors(index: Index) -> None:
    make(index)
    long: Any = "\x00" * 1_000_000
    vector = f32(1, 2)
    calls: list[Any] = [
        lambda: index.count(long),
        lambda: index.create(CollectionSpec(long, 2, Metric.L2, "")),
        lambda: index.create(CollectionSpec("a", 2, Metric.L2, long)),
        lambda: index.upsert("photos", [Item(long, vector)]),
        lambda: index.upsert("photos", [Item("a", vector, {long: np.nan})]),
        lambda: index.upsert("photos", [Item("a", vector, {"x": (long,)})]),  # type: ignore[dict-item] # meant
        lambda: index.upsert("photos", [Item("a", vector, {"x": long})]),
        lambda: index.upsert("photos", [Item("y" * 512, f32(1, 2, 3))]),
        lambda: index.search("photos", f32([1, 2]), long),
    ]
    for call in calls:
        with pytest.raises(RequestError) as caught:
            call()
        assert len(str(caught.value)) < 500


def test_the_names_that_an_error_lists_are_bounded(index: Index) -> None:
    for number in range(30):
        index.create(CollectionSpec(f"{number:0128}", 2, Metric.L2, ""))
    with pytest.raises(CollectionNotFound, match="and 10 more") as caught:
        index.count("x")
    assert len(str(caught.value)) < 4000  # a gRPC status has 8 kB


def test_another_dimension_is_refused_with_both_named(index: Index) -> None:
    make(index)
    with pytest.raises(VectorMismatch, match="item 'b' has dimension 3; collection photos has 2"):
        index.upsert("photos", [Item("a", f32(1, 2)), Item("b", f32(1, 2, 3))])
    with pytest.raises(VectorMismatch, match="query has dimension 1; collection photos has 2"):
        index.search("photos", f32([1]), 1)
    assert index.count("photos") == 0


def test_a_bad_query_is_refused(index: Index) -> None:
    make(index)
    with pytest.raises(InvalidRequest, match="query 1 has nan at 0; expected finite"):
        index.search("photos", f32([1, 2], [np.nan, 2]), 1)
    with pytest.raises(InvalidRequest, match=r"of shape \[2\]; expected float32 \[queries, dimension\]"):
        index.search("photos", f32(1, 2), 1)


def test_float16_rounds_what_comes_in_and_is_searched_exactly(open_engine: Opener, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((40, 24)).astype(np.float32)
    stored = vectors.astype(np.float16).astype(np.float32)
    queries = rng.standard_normal((5, 24)).astype(np.float32)
    spec = CollectionSpec("photos", 24, Metric.L2, "", storage=Storage.FLOAT16)
    for opening in range(2):
        index = open_engine(tmp_path)
        if opening == 0:
            index.create(spec)
            index.upsert("photos", [Item(str(n), vector) for n, vector in enumerate(vectors)])
        assert index.describe("photos").spec == spec
        [item] = index.get("photos", ["7"])
        assert item.vector.dtype == np.float32
        np.testing.assert_array_equal(item.vector, stored[7])
        np.testing.assert_array_equal(index.vectors("photos", ["8"])["8"], stored[8])
        results = index.search("photos", queries, 6)  # queries aren't rounded
        distances = np.linalg.norm(queries[:, None] - stored, axis=-1)
        for neighbors, distance in zip(results, distances, strict=True):
            order = np.argsort(distance)[:6]
            assert [neighbor.id for neighbor in neighbors] == [str(n) for n in order]
            np.testing.assert_allclose([n.score for n in neighbors], -distance[order], atol=1e-4)
        index.close()


def test_float16_refuses_what_it_cannot_hold(index: Index) -> None:
    index.create(CollectionSpec("photos", 2, Metric.INNER_PRODUCT, "", storage=Storage.FLOAT16))
    index.upsert("photos", [Item("largest", f32(65_504, -65_504))])
    with pytest.raises(
        InvalidRequest, match="item 'a' has -65520 at 1; expected at most 65,504, as collecti"
    ):
        index.upsert("photos", [Item("b", f32(1, 1)), Item("a", f32(0, -65_520))])
    assert found(index, 1, 0) == [("largest", 65_504)]
    assert found(index, 1e17, 0)[0][1] == pytest.approx(6.5504e21, rel=1e-6)


DECLARED = {
    "label": AttributeType.STRING,
    "size": AttributeType.INT,
    "ratio": AttributeType.FLOAT,
    "good": AttributeType.BOOL,
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("label", 7, "a string of UTF-8"),
        ("label", "a\0b", "a string of UTF-8"),
        ("size", "7", "an int of 64 bits"),
        ("size", 7.0, "an int of 64 bits"),
        ("size", True, "an int of 64 bits"),
        ("ratio", "7", "a finite float"),
        ("ratio", False, "a finite float"),
        ("good", 1, "a bool"),
        ("good", "true", "a bool"),
    ],
)
def test_a_declared_attribute_of_another_type_is_refused(
    index: Index, name: str, value: AttributeValue, expected: str
) -> None:
    index.create(CollectionSpec("photos", 2, Metric.L2, "", DECLARED))
    with pytest.raises(InvalidRequest, match=f"item 'b': attribute '{name}' is .* declares {expected}"):
        index.upsert("photos", [Item("a", f32(1, 2)), Item("b", f32(1, 2), {name: value})])
    assert index.count("photos") == 0


def test_declared_attributes_keep_their_values_and_types(open_engine: Opener, tmp_path: Path) -> None:
    spec = CollectionSpec("photos", 2, Metric.L2, "", DECLARED)
    given: list[dict[str, AttributeValue]] = [
        {"label": "", "size": 2**63 - 1, "ratio": -0.0, "good": False, "other": 1},
        {"label": "数字 'x' \"y\" %s {}", "size": -(2**63), "ratio": 5e-324, "good": True},
        {"ratio": 2**53 + 1},
        {},
    ]
    expected = [*given[:2], {"ratio": float(2**53)}, {}]
    for opening in range(2):
        index = open_engine(tmp_path)
        if opening == 0:
            index.create(spec)
            index.upsert("photos", [Item(str(n), f32(n, 0), a) for n, a in enumerate(given)])
        assert index.describe("photos").spec == spec
        for item, attributes in zip(index.get("photos", list("0123")), expected, strict=True):
            assert item.attributes == attributes
            assert {k: type(v) for k, v in item.attributes.items()} == {
                k: type(v) for k, v in attributes.items()
            }
        index.close()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"": AttributeType.INT}, "attribute name ''; expected 1 to 64 bytes"),
        ({"é" * 33: AttributeType.INT}, "expected 1 to 64 bytes of UTF-8"),
        ({"a\0": AttributeType.INT}, "without zero bytes"),
        ({"\ud800": AttributeType.INT}, "expected 1 to 64 bytes of UTF-8"),
        ({str(n): AttributeType.INT for n in range(65)}, "65 attributes are declared; expected at most 64"),
    ],
)
def test_a_bad_schema_is_refused(index: Index, schema: dict[str, AttributeType], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        index.create(CollectionSpec("photos", 2, Metric.L2, "", schema))
    assert sizes(index) == []


def test_a_schema_at_the_limit(index: Index, engine: str) -> None:
    most = MAX_ATTRIBUTES.get(engine, 64)
    names = ["é" * 32, 'a "quoted" name', "select", *(f"a{n}" for n in range(most - 3))]
    spec = CollectionSpec("photos", 2, Metric.L2, "", dict.fromkeys(names, AttributeType.INT))
    index.create(spec)
    index.upsert("photos", [Item("a", f32(1, 2), {name: n for n, name in enumerate(names)})])
    assert index.describe("photos").spec == spec
    assert all(index.count("photos", Equals(name, n)) == 1 for n, name in enumerate(names))
    beyond = {**spec.attributes, "one more": AttributeType.INT}
    with pytest.raises(InvalidRequest, match=f"{most + 1} attributes are declared; expected at most {most}"):
        index.create(CollectionSpec("art", 2, Metric.L2, "", beyond))
