"""Memory that goes back to the system when it isn't needed any more."""

import ctypes
import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_HUGE_BYTES = 4 * 1024 * 1024
_LIBC = ctypes.CDLL(None)


def own_pages(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A C-contiguous array of zeros in pages of its own, which go back to the system with it.

    The allocator keeps freed pieces of some megabytes, in each thread's arena: what grows by being made anew
    would take its room several times. Pages that are never written take none.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size == 0:
        return np.empty(shape, kind)
    # Shared pages, the default, are a file's in memory, and seldom large.
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):  # as numpy does with its own
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, kind).reshape(shape)


def aligned_rows(rows: int, dimension: int, dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised array [rows, dimension] whose address is a multiple of its rows' size.

    So any two of the same dimension and dtype are whole rows apart, and what reads rows of one by their
    numbers reaches the others' too.
    """
    kind = np.dtype(dtype)
    row_bytes = dimension * kind.itemsize
    room = np.empty((rows + 1) * row_bytes, np.uint8)
    start = -_address(room) % row_bytes
    return room[start : start + rows * row_bytes].view(kind).reshape(rows, dimension)


def first_row(vectors: NDArray[Any]) -> int:
    """The address of an array that `aligned_rows` made, in rows."""
    return _address(vectors) // vectors.strides[0]


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The parts, one at least, one after another along the first axis, in pages of their own."""
    rows = sum(len(part) for part in parts)
    return np.concatenate(parts, out=own_pages((rows, *parts[0].shape[1:]), parts[0].dtype))


def trim() -> None:
    """Give back what the allocator has kept of freed pieces; milliseconds. Only of glibc's."""
    if release := getattr(_LIBC, "malloc_trim", None):
        release(0)
