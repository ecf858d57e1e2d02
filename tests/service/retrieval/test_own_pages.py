"""Arrays in pages of their own: ordinary arrays, whose memory goes when they do."""

import gc
from pathlib import Path

import numpy as np
import pytest

from service.retrieval.own_pages import joined, own_pages, trim


def resident_bytes() -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("shape", [(0,), (0, 8), (3,), (5, 7), (1000, 64)])
def test_they_are_arrays_of_zeros_that_can_be_written(shape: tuple[int, ...]) -> None:
    array = own_pages(shape, np.float32)
    assert array.shape == shape
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert not array.any()
    array += 1
    assert (array == 1).all()


def test_parts_are_joined() -> None:
    parts = [np.arange(6, dtype=np.int64).reshape(3, 2), np.empty((0, 2), np.int64), np.full((1, 2), 9)]
    np.testing.assert_array_equal(joined(parts), [[0, 1], [2, 3], [4, 5], [9, 9]])


def test_memory_comes_with_writing_and_goes_with_the_array() -> None:
    size = 64 * 1024 * 1024
    gc.collect()
    before = resident_bytes()
    array = own_pages((size,), np.uint8)
    assert resident_bytes() - before < size / 4
    array[:] = 1
    assert resident_bytes() - before > size * 0.9
    del array
    assert resident_bytes() - before < size / 4


def test_what_the_allocator_keeps_is_given_back() -> None:
    trim()
    pieces = [bytearray(60_000) for _ in range(1000)]
    last = bytearray(60_000)  # above them, so that they aren't at the heap's end
    full = resident_bytes()
    del pieces
    trim()
    assert full - resident_bytes() > 30_000_000
    del last
