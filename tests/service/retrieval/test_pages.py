"""Pages: which places a scan looks at, and how many items come at a time."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest

from service.retrieval.checks import Batch
from service.retrieval.filters import Equals, Filter
from service.retrieval.pages import in_order_of_ids, in_order_of_writing
from service.retrieval.schema import AttributeType
from service.retrieval.segments import Segments

NAMES = [f"{n:04}" for n in range(5000)]


class Ids:
    """The record's ids: in order, and one that memory doesn't have yet."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, after: str, limit: int) -> Sequence[str]:
        self.asked += 1
        names = sorted([*NAMES, "0007 not yet"])
        return [name for name in names if name > after][:limit]


@pytest.fixture
def segments() -> Segments:
    """Written backwards; every 1,000th is rare, every second common."""
    segments = Segments(2, max_rows=700, schema={"kind": AttributeType.STRING})
    texts = [
        f'{{"kind":"{"rare" if n % 1000 == 0 else "common" if n % 2 else "other"}"}}' for n in range(5000)
    ]
    batch = Batch(NAMES[::-1], np.zeros((5000, 2), np.float32), texts[::-1])
    segments.publish(segments.prepare(batch))
    return segments


@pytest.mark.parametrize(
    ("condition", "expected", "asks"),
    [
        (None, NAMES[5:15], 2),
        (Equals("kind", "rare"), NAMES[1000::1000], 0),  # few: not looked for among all ids
        (Equals("kind", "common"), NAMES[5:25:2], 2),
    ],
)
def test_a_page_of_ten(segments: Segments, condition: Filter | None, expected: list[str], asks: int) -> None:
    ids = Ids()
    places = islice(in_order_of_ids(segments, ids, "0004", 10, condition), 10)
    assert [segment.ids[row] for segment, row in places] == expected
    assert ids.asked == asks


def test_what_was_deleted_since_the_ids_were_read_is_skipped(segments: Segments) -> None:
    def ids_after(after: str, limit: int) -> Sequence[str]:
        names = Ids()(after, limit)
        if "0003" in names:
            segments.publish(segments.prepare(removed=["0003"]))
        return names

    walk = in_order_of_ids(segments, ids_after, "", 4, None)
    assert [segment.ids[row] for segment, row in islice(walk, 4)] == [
        "0000",
        "0001",
        "0002",
        "0004",
    ]


def test_items_come_about_a_megabyte_at_a_time() -> None:
    segments = Segments(65_536)
    ids = [str(n) for n in range(9)]
    segments.publish(segments.prepare(Batch(ids, np.zeros((9, 65_536), np.float32), ["{}"] * 9)))
    pages = list(in_order_of_writing(segments.view()))
    assert [len(page) for page in pages] == [4, 4, 1]
    assert [item.id for page in pages for item in page] == ids
