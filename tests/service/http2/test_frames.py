"""Frames, byte for byte."""

import pytest

from service.http2 import frames
from service.http2.frames import Code, ConnectionFault, Kind, Setting


def test_a_frame() -> None:
    assert frames.frame(Kind.DATA, 1, 3, b"ab") == b"\x00\x00\x02\x00\x01\x00\x00\x00\x03ab"
    assert frames.header(Kind.DATA, 0, 1, 0x012345)[:3] == b"\x01\x23\x45"
    assert frames.settings({Setting.MAX_FRAME_SIZE: 16_384}).hex() == "000006040000000000000500004000"


@pytest.mark.parametrize(
    ("payload", "flags", "content"),
    [(b"abc", 0, b"abc"), (b"\x02abc\0\0", frames.PADDED, b"abc"), (b"\x03\0\0\0", frames.PADDED, b"")],
)
def test_padding(payload: bytes, flags: int, content: bytes) -> None:
    assert frames.unpadded(payload, flags) == content


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x04abc"])
def test_more_padding_than_payload(payload: bytes) -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.unpadded(payload, frames.PADDED)
    assert caught.value.code == Code.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 2**31, Code.FLOW_CONTROL_ERROR),
        (Setting.MAX_FRAME_SIZE, 16_383, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**24, Code.PROTOCOL_ERROR),
    ],
)
def test_settings_out_of_range(name: Setting, value: int, code: Code) -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.read_settings(frames.settings({name: value})[9:])
    assert caught.value.code == code


def test_settings_cut_short() -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.read_settings(bytes(7))
    assert caught.value.code == Code.FRAME_SIZE_ERROR
