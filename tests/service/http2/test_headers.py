"""Header blocks, against hpack's encoder and decoder."""

import grpc
import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from service.http2 import headers
from service.http2.frames import Code, ConnectionFault
from service.http2.headers import CallHeaders, HeaderReader
from tests.service.http2.peer import request_headers


def read(*pairs: tuple[str, str]) -> CallHeaders:
    return HeaderReader().read(Encoder().encode(pairs))


def test_a_call() -> None:
    found = read(
        *request_headers("Echo", grpc_timeout="20m", grpc_encoding="gzip", user_agent="me", x_many="a"),
        ("x-many", "b"),
        ("x-raw-bin", "AP8,AQ=="),
    )
    assert (found.method, found.path, found.encoding) == ("POST", "/test.Test/Echo", "gzip")
    assert found.timeout_s == pytest.approx(0.02)
    assert found.metadata == (
        ("user-agent", "me"),
        ("x-many", "a"),
        ("x-many", "b"),
        ("x-raw-bin", b"\x00\xff"),
        ("x-raw-bin", b"\x01"),
    )
    assert found.fault is None
    assert not found.malformed


@pytest.mark.parametrize(
    "timeout", ["", "1", "S", "-1S", "123456789S", "1s", "1S ", "٣S".encode().decode("latin-1")]
)
def test_a_timeout_that_is_none(timeout: str) -> None:
    fault = read(*request_headers("Echo", grpc_timeout=timeout)).fault
    assert fault is not None
    assert fault[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_binary_metadata_that_isn_t() -> None:
    fault = read(*request_headers("Echo"), ("x-bin", "?")).fault
    assert fault == (grpc.StatusCode.INVALID_ARGUMENT, "x-bin isn't base64")


@pytest.mark.parametrize(
    "pairs",
    [
        request_headers("Echo")[1:],
        request_headers("Echo")[:1] + request_headers("Echo")[2:],
        [pair for pair in request_headers("Echo") if pair[0] != ":path"],
        [*request_headers("Echo"), (":authority", "late")],
        [(":method", "POST"), *request_headers("Echo")],
        [(":protocol", "websocket"), *request_headers("Echo")],
        [*request_headers("Echo"), ("X-Upper", "a")],
        [*request_headers("Echo"), ("", "a")],
        [*request_headers("Echo"), ("connection", "close")],
        [*request_headers("Echo"), ("te", "gzip")],
        [*request_headers("Echo"), ("x-a", "one\r\nx-b: two")],
        [*request_headers("Echo"), ("x-a", "\x00")],
    ],
)
def test_what_is_no_request(pairs: list[tuple[str, str]]) -> None:
    assert read(*pairs).malformed


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        ("application/grpc", True), ("application/grpc+proto", True), ("application/grpc;v=1", True),
        ("application/grpc-web", False), ("application/grpcx", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_grpc(content_type: str, is_grpc: bool) -> None:
    assert headers.is_grpc(content_type) == is_grpc


def test_too_many_headers_fail_their_call_only() -> None:
    encoder, reader = Encoder(), HeaderReader()
    large = [(f"x-{number}", "v" * 1000) for number in range(20)]
    fault = reader.read(encoder.encode([*request_headers("Echo"), *large])).fault
    assert fault is not None
    assert fault[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reader.read(encoder.encode(request_headers("Echo"))).fault is None


def test_an_expanding_block_is_stopped() -> None:
    encoder, reader = Encoder(), HeaderReader()
    reader.read(encoder.encode([("x-long", "v" * 4000)]))
    with pytest.raises(ConnectionFault) as caught:
        reader.read(encoder.encode([("x-long", "v" * 4000)]) * 1000)
    assert caught.value.code == Code.ENHANCE_YOUR_CALM


@given(st.binary(max_size=60))
def test_nonsense_is_a_fault_and_nothing_else(block: bytes) -> None:
    try:
        HeaderReader().read(block)
    except ConnectionFault as fault:
        assert fault.code in (Code.COMPRESSION_ERROR, Code.ENHANCE_YOUR_CALM)  # noqa: PT017 - it may read well


PAIRS = st.lists(
    st.tuples(st.sampled_from(["x-a", "x-b", "user-agent"]), st.sampled_from(["1", "2", "v" * 3000])),
    max_size=4,
)


@given(st.lists(PAIRS, max_size=12))
def test_remembered_blocks_say_what_hpack_says(calls: list[list[tuple[str, str]]]) -> None:
    # 3000 bytes evict others from the table of 4096: the same block then means something else.
    encoder, reader = Encoder(), HeaderReader()
    for metadata in calls:
        for _ in range(2):
            block = encoder.encode([*request_headers("Echo"), *metadata])
            assert list(reader.read(block).metadata) == metadata


def test_a_block_is_read_once_while_the_table_stays() -> None:
    encoder, reader = Encoder(), HeaderReader()
    reader.read(encoder.encode(request_headers("Echo")))
    block = encoder.encode(request_headers("Echo"))
    assert reader.read(block) is reader.read(block)
    before = reader.read(block)
    reader.read(encoder.encode(request_headers("Echo", x_new="1")))  # indices move
    assert reader.read(encoder.encode(request_headers("Echo"))) == before


def test_large_blocks_aren_t_kept() -> None:
    reader = HeaderReader()
    block = headers.ending(0, "", (("x-large", "v" * 5000),))  # leaves the table as it is
    assert reader.read(block) == reader.read(block)
    assert reader.read(block) is not reader.read(block)


@given(st.integers(0, 100_000))
def test_lengths_are_hpack_s(length: int) -> None:
    decoder = Decoder(max_header_list_size=200_000)
    (found,) = decoder.decode(b"\x00\x01a" + headers._length(length) + bytes(length), raw=True)
    assert tuple(found) == (b"a", bytes(length))


def test_an_ending() -> None:
    block = headers.ending(5, "à 100 %\n", (("x-a", "b"), ("x-raw-bin", b"\x00\xff")))
    assert [tuple(pair) for pair in Decoder().decode(block, raw=True)] == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"%C3%A0 100 %25%0A"),
        (b"x-a", b"b"),
        (b"x-raw-bin", b"AP8"),
    ]


@pytest.mark.parametrize(
    "pair", [("X-A", "b"), ("x a", "b"), ("", "b"), ("x-a", "b\n"), ("x-a", "é"), ("x-a", b"\xff")]
)
def test_metadata_that_http_doesn_t_carry(pair: tuple[str, str | bytes]) -> None:
    with pytest.raises(ValueError, match="expected"):
        headers.ending(0, "", (pair,))
