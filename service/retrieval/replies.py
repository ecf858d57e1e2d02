"""What a read returns of stored rows: its size is summed before any of it is made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from service.errors import InvalidRequest
from service.retrieval.checks import unpack_all
from service.retrieval.index import Item
from service.retrieval.segments import Segment

T = TypeVar("T")
# Of a float32.
NUMBER_BYTES = 4
# What the caller of a search can ask for instead where its reply is too large.
FEWER_NEIGHBORS = "ask for fewer neighbours, or send fewer queries at a time"


def fewer_ids(*, include_vectors: bool) -> str:
    """What the caller of a read by ids can ask for instead where its reply is too large."""
    return "ask for fewer ids" + (", or leave the vectors out" if include_vectors else "")


def bytes_of_vector(dimension: int, *, include_vectors: bool) -> int:
    """What the vector of one item takes in a reply."""
    return NUMBER_BYTES * dimension if include_vectors else 0


def attributes_of(
    places: Sequence[tuple[Segment, int]], bytes_each: int, max_reply_bytes: int | None, remedy: str
) -> list[Mapping[str, Any]]:
    """The attributes of each place; of equal places one and the same mapping, unpacked once.

    Args:
        places: segment and row of each thing returned.
        bytes_each: what is returned of each besides its id and attributes.
        max_reply_bytes: of all together; None: any number.
        remedy: what the caller can ask for instead.

    Raises:
        InvalidRequest: they are larger.
    """
    # A segment is told by its identity: comparing its fields would compare arrays.
    keys = [(id(segment), row) for segment, row in places]
    distinct = dict(zip(keys, places, strict=True))
    if max_reply_bytes is not None:
        sizes = {key: bytes_each + bytes_of(place) for key, place in distinct.items()}
        size = sum(map(sizes.__getitem__, keys))
        check_reply_size(size, max_reply_bytes, remedy)
    texts = (segment.attributes[row] for segment, row in distinct.values())
    attributes = dict(zip(distinct, unpack_all(texts), strict=True))
    return list(map(attributes.__getitem__, keys))


def items_at(
    places: Sequence[tuple[Segment, int]], attributes: Sequence[Mapping[str, Any]], *, include_vectors: bool
) -> list[Item]:
    """The items there, with these attributes; their vectors are the caller's own, [0] where left out."""
    used = slice(None) if include_vectors else slice(0)
    return [
        Item(segment.ids[row], segment.vectors[row, used].astype(np.float32), values)
        for (segment, row), values in zip(places, attributes, strict=True)
    ]


def bytes_of(place: tuple[Segment, int]) -> int:
    """The id and attributes there, in bytes of UTF-8."""
    segment, row = place
    return _utf8_size(segment.ids[row]) + _utf8_size(segment.attributes[row])


def first_of(
    things: Iterable[T], bytes_of_one: Callable[[T], int], limit: int, max_reply_bytes: int | None
) -> list[T]:
    """At most `limit`, and only as many as fit into a reply, but one at least.

    Args:
        things: what there is to return.
        bytes_of_one: what one of them takes in the reply.
        limit: at least 1.
        max_reply_bytes: of all together; None: any number.
    """
    taken: list[T] = []
    size = 0
    for one in things:
        size += bytes_of_one(one)
        if taken and max_reply_bytes is not None and size > max_reply_bytes:
            break
        taken.append(one)
        if len(taken) == limit:
            break
    return taken


def check_reply_size(size_bytes: int, max_reply_bytes: int, remedy: str) -> None:
    """Raises:
    InvalidRequest: the reply is too large to be sent.
    """
    if size_bytes > max_reply_bytes:
        raise InvalidRequest(
            f"the reply would take {size_bytes:,} bytes; expected at most {max_reply_bytes:,}: {remedy}"
        )


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
