"""Vectors read and written by their bytes, against protobuf's own reading and writing."""

import struct

import numpy as np
import pytest
from fovea.v1 import model_pb2
from hypothesis import given
from hypothesis import strategies as st

from service.servicers.vectors import array_of, vector_of

NUMBERS = st.lists(st.floats(width=32, allow_nan=False), max_size=70)
# Field 9, a varint, and field 10, bytes that look like a packed vector of one number.
UNKNOWN = b"\x48\x07" + b"\x52\x06\x0a\x04" + struct.pack("<f", 9.0)


def packed(*numbers: float) -> bytes:
    content = struct.pack(f"<{len(numbers)}f", *numbers)
    assert len(content) < 0x80
    return bytes((0x0A, len(content))) + content


def unpacked(*numbers: float) -> bytes:
    return b"".join(b"\x0d" + struct.pack("<f", number) for number in numbers)


@given(NUMBERS)
def test_both_ways_are_protobufs(numbers: list[float]) -> None:
    message, array = model_pb2.Vector(values=numbers), np.array(numbers, np.float32)
    assert vector_of(array).SerializeToString() == message.SerializeToString()
    read = array_of(message)
    assert read.dtype == np.float32
    assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize("count", [0, 1, 31, 32, 4095, 4096, 65_536])
def test_any_length(count: int) -> None:
    """The length before the numbers takes one to three bytes."""
    array = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    message = model_pb2.Vector.FromString(vector_of(array).SerializeToString())
    assert list(message.values) == array.tolist()
    assert array_of(message).tolist() == array.tolist()


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        (b"", []),
        (unpacked(1, 2, 3), [1, 2, 3]),
        (packed(1, 2) + packed(3), [1, 2, 3]),
        (packed(1) + unpacked(2) + packed(), [1, 2]),
        (UNKNOWN, []),
        (UNKNOWN + packed(1, 2), [1, 2]),
        (packed(1, 2) + UNKNOWN, [1, 2]),
        (UNKNOWN + unpacked(1) + UNKNOWN + packed(2), [1, 2]),
    ],
)
def test_however_it_came(content: bytes, numbers: list[float]) -> None:
    assert array_of(model_pb2.Vector.FromString(content)).tolist() == numbers


def test_numbers_that_are_none_stay_for_the_checks_to_refuse() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    for read in (array_of(vector_of(array)), array_of(model_pb2.Vector(values=array.tolist()))):
        np.testing.assert_array_equal(read, array)
        assert np.signbit(read).tolist() == np.signbit(array).tolist()


def test_the_array_is_the_callers_own() -> None:
    message = model_pb2.Vector(values=[1, 2])
    array = array_of(message)
    array[:] = 7
    assert array.flags.aligned
    assert list(message.values) == [1, 2]


def test_every_other_number_of_an_array_is_written() -> None:
    assert list(vector_of(np.arange(6, dtype=np.float32)[::2]).values) == [0, 2, 4]
