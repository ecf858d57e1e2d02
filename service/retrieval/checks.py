"""What comes in, checked and brought into the form that every engine stores."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidRequest, VectorMismatch, listed, shorten
from service.retrieval.filters import check_filter
from service.retrieval.index import CollectionSpec, Item, Metric, SearchOptions, Storage
from service.retrieval.schema import AttributeType, check_schema, fits

MAX_DIMENSION = 65_536
MAX_FINGERPRINT_BYTES = 512
MAX_ID_BYTES = 512
MAX_ATTRIBUTES_BYTES = 64 * 1024
# Squares of sums of two such lengths still fit float32, in which vectors are compared.
MAX_LENGTH = 1e18
MAX_NAME_LENGTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DECODER = json.JSONDecoder()
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Batch:
    """Items as they are stored, each id once.

    Attributes:
        ids: the items', in the order in which they are written.
        vectors: float32 [items, dimension], C-contiguous; of length 1 where the metric is the cosine, and
            rounded to what the collection's storage holds.
        attributes: JSON objects; int, float, bool and string stay what they are.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    attributes: list[str]


def check_spec(spec: CollectionSpec) -> None:
    """Raises:
    InvalidRequest: the name, dimension, fingerprint or an attribute can't be used.
    """
    check_name("collection", spec.name)
    if not _is_int(spec.dimension) or not 1 <= spec.dimension <= MAX_DIMENSION:
        raise InvalidRequest(
            f"collection {spec.name}: dimension {shorten(spec.dimension)}; "
            f"expected a whole number from 1 to {MAX_DIMENSION:,}"
        )
    size = _utf8_size(spec.fingerprint)
    if size is None or size > MAX_FINGERPRINT_BYTES or "\0" in spec.fingerprint:
        raise InvalidRequest(
            f"collection {spec.name}: fingerprint {shorten(spec.fingerprint)}; "
            f"expected at most {MAX_FINGERPRINT_BYTES} bytes of UTF-8 without zero bytes"
        )
    check_schema(spec.attributes)


def check_name(what: str, name: str) -> None:
    """Raises:
    InvalidRequest: it isn't a name as collections and snapshots have.
    """
    if not is_name(name):
        raise InvalidRequest(
            f"{what} name {shorten(name)}; expected 1 to 128 letters, digits, '_', '-' and '.', "
            "starting with a letter or digit"
        )


def is_name(text: object) -> bool:
    """Whether collections and snapshots can have this name."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def check_top_k(top_k: int) -> None:
    """Raises:
    InvalidRequest: it isn't a whole number above 0.
    """
    if not _is_int(top_k) or top_k < 1:
        raise InvalidRequest(f"top_k is {shorten(top_k)}; expected a whole number of at least 1")


def check_page(after: str, limit: int) -> None:
    """Raises:
    InvalidRequest: the id to go on after is no UTF-8, or the limit isn't a whole number above 0.
    """
    if _utf8_size(after) is None:
        raise InvalidRequest(f"the page is after {shorten(after)}; expected an id of UTF-8, or none")
    if not _is_int(limit) or limit < 1:
        raise InvalidRequest(f"limit is {shorten(limit)}; expected a whole number of at least 1")


def check_options(spec: CollectionSpec, options: SearchOptions) -> None:
    """Raises:
    InvalidRequest: a filter that `check_filter` refuses, a minimum score that isn't finite, a group by an
        attribute that isn't declared or of less than one item, a negative offset, or a recall outside (0, 1].
    """
    if options.filter is not None:
        check_filter(spec.attributes, options.filter)
    if options.min_score is not None and not math.isfinite(options.min_score):
        raise InvalidRequest(f"min_score is {options.min_score}; expected a finite number")
    if options.group_by is not None:
        if options.group_by.attribute not in spec.attributes:
            raise InvalidRequest(
                f"group_by names attribute {shorten(options.group_by.attribute)}; expected one that the "
                f"collection declares: {listed(sorted(spec.attributes))}"
            )
        if options.group_by.max_per_group < 1:
            raise InvalidRequest(
                f"group_by has max_per_group {options.group_by.max_per_group}; expected at least 1"
            )
    if options.offset < 0:
        raise InvalidRequest(f"offset is {options.offset}; expected 0 or more")
    if not 0 < options.recall <= 1:
        raise InvalidRequest(f"recall is {options.recall}; expected above 0, and at most 1")


def pack_items(spec: CollectionSpec, items: Sequence[Item]) -> Batch:
    """Check items and pack them; of several with one id the last is kept, in the place of the first.

    Raises:
        VectorMismatch: a vector of another dimension.
        InvalidRequest: an id or attribute that can't be stored, a declared attribute of another type, or a
            vector that isn't finite, is longer than `MAX_LENGTH`, is zero where the metric is the cosine, or
            doesn't fit the collection's storage.
    """
    for item in items:
        size = _utf8_size(item.id)
        if size is None or not 1 <= size <= MAX_ID_BYTES or "\0" in item.id:
            raise InvalidRequest(
                f"an item's id is {shorten(item.id)}; expected 1 to {MAX_ID_BYTES} bytes of UTF-8 without "
                "zero bytes"
            )
    attributes = [_pack_attributes(spec, item) for item in items]
    vectors = np.empty((len(items), spec.dimension), np.float32)
    for number, item in enumerate(items):
        vector = np.asarray(item.vector)
        _check_shape(spec, vector, 1, f"the vector of item {shorten(item.id)}")
        with np.errstate(over="ignore"):  # float64 beyond float32: refused below as not finite
            vectors[number] = vector

    def name(number: int) -> str:
        return f"the vector of item {shorten(items[number].id)}"

    vectors = _rounded(spec, _normalise(spec.storage, spec, vectors, name), name)
    last = {item.id: number for number, item in enumerate(items)}
    if len(last) == len(items):
        return Batch(list(last), vectors, attributes)
    kept = list(last.values())
    return Batch(list(last), vectors[kept], [attributes[number] for number in kept])


def check_item(spec: CollectionSpec, item: Item) -> None:
    """Raises what `pack_items` would because of this item."""
    pack_items(spec, [item])


def pack_queries(spec: CollectionSpec, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Check query vectors, and normalise them where the metric is the cosine.

    Returns:
        float32 [queries, dimension], C-contiguous.

    Raises:
        VectorMismatch: queries of another dimension.
        InvalidRequest: a query that isn't finite, is longer than `MAX_LENGTH`, or is zero where the metric
            is the cosine.
    """
    array = np.asarray(queries)
    _check_shape(spec, array, 2, "the query")
    with np.errstate(over="ignore"):  # as above
        vectors = np.ascontiguousarray(array, np.float32)
    return _normalise(
        Storage.FLOAT32, spec, vectors, lambda number: "the query" if len(vectors) == 1 else f"query {number}"
    )


def check_queries(spec: CollectionSpec, vectors: Sequence[NDArray[np.float32]]) -> None:
    """Raises what `pack_queries` would because of these vectors, float32 [dimension]; one at least."""
    for vector in vectors:
        _check_shape(spec, vector, 1, "the query")
    pack_queries(spec, np.stack(vectors))


def unpack_attributes(text: str) -> Mapping[str, Any]:
    """The attributes that `pack_items` wrote.

    Raises:
        ValueError, TypeError: it never wrote this.
    """
    # Called for every item read; json.loads takes twice as long.
    attributes: dict[str, Any] = _DECODER.raw_decode(text)[0]
    return attributes


def unpack_all(texts: Iterable[str]) -> list[Mapping[str, Any]]:
    """The attributes of several items, in a third of the time that one after another takes.

    Raises:
        ValueError, TypeError: `pack_items` never wrote these.
    """
    attributes: list[Mapping[str, Any]] = _DECODER.raw_decode(f"[{','.join(texts)}]")[0]
    return attributes


def _check_shape(spec: CollectionSpec, array: NDArray[Any], axes: int, what: str) -> None:
    if array.ndim != axes or array.dtype.kind not in "fiu":
        expected = "[dimension]" if axes == 1 else "[queries, dimension]"
        raise InvalidRequest(
            f"{what} is {array.dtype} of shape {list(array.shape)}; expected float32 {expected}"
        )
    if array.shape[-1] != spec.dimension:
        raise VectorMismatch(
            f"{what} has dimension {array.shape[-1]}; collection {spec.name} has {spec.dimension}"
        )


def _normalise(
    storage: Storage,
    spec: CollectionSpec,
    vectors: NDArray[np.float32],
    what: Callable[[int], str],
) -> NDArray[np.float32]:
    # In float64 no finite float32 vector's length overflows, and none but zero has length zero.
    lengths = np.sqrt(np.einsum("nd,nd->n", wide := vectors.astype(np.float64), wide))
    finite = np.isfinite(lengths)
    if not finite.all():
        number = int(np.flatnonzero(~finite)[0])
        place = int(np.flatnonzero(~np.isfinite(vectors[number]))[0])
        raise InvalidRequest(
            f"{what(number)} has {vectors[number, place]} at {place}; expected finite float32"
        )
    if spec.metric is Metric.COSINE:
        if not lengths.all():
            number = int(np.flatnonzero(lengths == 0)[0])
            raise InvalidRequest(f"{what(number)} is zero; expected a direction, as the metric is the cosine")
        # What has length 1 already, but for rounding, stays to the bit: vectors that are read and written
        # again, as by a snapshot, must not wander.
        lengths[np.abs(lengths - 1) <= _roundings(storage, vectors)] = 1
        wide /= lengths[:, None]
        return wide.astype(np.float32)
    if lengths.size and lengths.max() > MAX_LENGTH:
        number = int(lengths.argmax())
        raise InvalidRequest(
            f"{what(number)} has length {lengths[number]:.3g}; expected at most {MAX_LENGTH:.0e}"
        )
    return vectors


def _roundings(storage: Storage, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much each vector's length may be off by rounding alone, [vectors]."""
    roundings = np.full(len(vectors), 2.0**-23)
    if storage is Storage.FLOAT16:
        with np.errstate(over="ignore"):  # not equal then
            halves = (vectors.astype(np.float16) == vectors).all(axis=1)
        roundings[halves] = 2.0**-11
    return roundings


def _rounded(
    spec: CollectionSpec, vectors: NDArray[np.float32], what: Callable[[int], str]
) -> NDArray[np.float32]:
    if spec.storage is Storage.FLOAT32:
        return vectors
    with np.errstate(over="ignore"):  # refused below
        halves = vectors.astype(np.float16)
    fitting = np.isfinite(halves).all(axis=1)
    if not fitting.all():
        number = int(fitting.argmin())
        place = int(np.isinf(halves[number]).argmax())
        raise InvalidRequest(
            f"{what(number)} has {vectors[number, place]:g} at {place}; expected at most "
            f"{np.finfo(np.float16).max:,.0f}, as collection {spec.name} stores float16"
        )
    return halves.astype(np.float32)


def _pack_attributes(spec: CollectionSpec, item: Item) -> str:
    if not item.attributes:
        return "{}"
    for name, value in item.attributes.items():
        if not _utf8_size(name) or not _storable(value):
            raise InvalidRequest(
                f"item {shorten(item.id)}: attribute {shorten(name)} is {shorten(value)}; expected a name of "
                "UTF-8 that isn't empty, and a string of UTF-8, a 64-bit int, a finite float or a bool"
            )
    values = dict(item.attributes)
    for name in values.keys() & spec.attributes.keys():
        declared = spec.attributes[name]
        if not fits(declared, values[name]):
            raise InvalidRequest(
                f"item {shorten(item.id)}: attribute {shorten(name)} is {shorten(values[name])}; collection "
                f"{spec.name} declares {declared.described}"
            )
        if declared is AttributeType.FLOAT:
            values[name] = float(values[name])
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    size = len(text.encode())
    if size > MAX_ATTRIBUTES_BYTES:
        raise InvalidRequest(
            f"item {shorten(item.id)}: its attributes take {size:,} bytes as JSON; "
            f"expected at most {MAX_ATTRIBUTES_BYTES:,}"
        )
    return text


def _storable(value: object) -> bool:
    match value:
        case bool():
            return True
        case int():
            return _INT64_MIN <= value <= _INT64_MAX
        case float():
            return math.isfinite(value)
    return _utf8_size(value) is not None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _utf8_size(text: object) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return None
