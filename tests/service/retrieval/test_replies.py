"""What a read returns: sized before it is unpacked, and unpacked once."""

from collections.abc import Iterable

import numpy as np
import pytest

from service.errors import InvalidRequest
from service.retrieval import replies
from service.retrieval.checks import Batch, unpack_all
from service.retrieval.segments import Segment, Segments


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was unpacked, in order."""
    texts: list[str] = []

    def unpack(several: Iterable[str]) -> object:
        texts.extend(some := list(several))
        return unpack_all(some)

    monkeypatch.setattr(replies, "unpack_all", unpack)
    return texts


@pytest.fixture
def places() -> list[tuple[Segment, int]]:
    """Of four rows in two segments."""
    segments = Segments(2, max_rows=2)
    texts = [f'{{"n":{n}}}' for n in range(4)]
    segments.publish(segments.prepare(Batch(list("abcd"), np.zeros((4, 2), np.float32), texts)))
    return segments.read("abcd")


def test_each_row_is_unpacked_once(unpacked: list[str], places: list[tuple[Segment, int]]) -> None:
    attributes = replies.attributes_of(places * 5 + places[2:3], 4, None, "")
    assert attributes == [{"n": n} for n in range(4)] * 5 + [{"n": 2}]
    assert unpacked == [f'{{"n":{n}}}' for n in range(4)]


def test_nothing_is_unpacked_of_a_reply_that_is_too_large(
    unpacked: list[str], places: list[tuple[Segment, int]]
) -> None:
    size = 1000 * 4 * (1 + len('{"n":0}') + 100)
    with pytest.raises(
        InvalidRequest, match=f"the reply would take {size:,} bytes; expected at most 999: ask for less"
    ):
        replies.attributes_of(places * 1000, 100, 999, "ask for less")
    assert unpacked == []


@pytest.mark.parametrize(
    ("limit", "max_reply_bytes", "taken"),
    [(2, None, [3, 5]), (9, None, [3, 5, 4, 1]), (9, 12, [3, 5, 4]), (9, 11, [3, 5]), (9, 1, [3])],
)
def test_a_page_is_as_much_as_fits_and_one_at_least(
    limit: int, max_reply_bytes: int | None, taken: list[int]
) -> None:
    looked_at: list[int] = []

    def size_of(one: int) -> int:
        looked_at.append(one)
        return one

    assert replies.first_of(iter([3, 5, 4, 1]), size_of, limit, max_reply_bytes) == taken
    # What is read from a server is read no further than it takes.
    assert len(looked_at) <= len(taken) + 1
