"""Messages out of DATA, however it is cut."""

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http2.messages import MessageFault, MessageReader, TooLarge, Unsupported, prefixed


def cut(content: bytes, cuts: list[int]) -> list[memoryview]:
    """It in pieces, each a part of a larger read as the connection hands them on, or whole."""
    places = [0, *sorted(place % (len(content) + 1) for place in cuts), len(content)]
    view = memoryview(content)
    return [view[begin:end] for begin, end in itertools.pairwise(places)]


@given(
    st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 4000), max_size=20), st.booleans()
)
def test_any_cutting_gives_the_same_messages(contents: list[bytes], cuts: list[int], own: bool) -> None:
    reader = MessageReader(1000, "")
    stream = b"".join(map(prefixed, contents))
    for part in cut(stream, cuts):
        reader.feed(memoryview(bytes(part)) if own else part)
    assert reader.held_bytes == len(stream)
    assert not reader.within
    assert [reader.take() for _ in contents] == contents
    assert not reader
    assert reader.held_bytes == 0


@given(st.binary(min_size=1, max_size=100), st.integers(0, 104))
def test_it_knows_what_is_missing(content: bytes, came: int) -> None:
    reader = MessageReader(1000, "")
    stream = prefixed(content)
    came = min(came, len(stream) - 1)
    reader.feed(memoryview(stream[:came]))
    assert reader.within == (came > 0)
    assert reader.missing_bytes == (5 - came if came < 5 else len(stream) - came)
    assert not reader


def test_a_message_that_is_too_large_is_refused_by_its_announcement() -> None:
    reader = MessageReader(10, "")
    with pytest.raises(TooLarge, match=r"^Received message larger than max \(11 vs. 10\)$"):
        reader.feed(memoryview(b"\x00\x00\x00\x00\x0b"))


def test_an_unknown_flag_is_a_fault() -> None:
    with pytest.raises(MessageFault, match="begins with 2"):
        MessageReader(10, "").feed(memoryview(b"\x02\x00\x00\x00\x00"))


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_messages(encoding: str, compress: object) -> None:
    assert callable(compress)
    packed = compress(bytes(5000))
    reader = MessageReader(5000, encoding)
    for content in (packed, compress(bytes(5001)), packed[:-3], b"nonsense"):
        reader.feed(memoryview(b"\x01" + prefixed(content)[1:]))
    assert reader.take() == bytes(5000)
    with pytest.raises(TooLarge, match=r"^Received message larger than max"):
        reader.take()
    with pytest.raises(MessageFault, match="cut short"):
        reader.take()
    with pytest.raises(MessageFault, match=f"isn't {encoding}"):
        reader.take()


@pytest.mark.parametrize(("encoding", "unsupported"), [("", False), ("identity", False), ("snappy", True)])
def test_messages_compressed_in_no_known_way(encoding: str, unsupported: bool) -> None:
    reader = MessageReader(10, encoding)
    reader.feed(memoryview(b"\x01\x00\x00\x00\x01x"))
    with pytest.raises(MessageFault) as caught:
        reader.take()
    assert isinstance(caught.value, Unsupported) == unsupported


def test_a_little_of_a_large_read_doesn_t_hold_all_of_it() -> None:
    reader = MessageReader(1000, "")
    read = bytes(100_000) + prefixed(b"abc")[:-1]
    reader.feed(memoryview(read)[100_000:])
    assert all(not isinstance(part, memoryview) for part in reader._parts)
