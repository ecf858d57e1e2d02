"""fovea.v1.Vector ↔ float32 arrays, by its bytes.

A vector's numbers lie side by side on the wire, as float32. Read one by one, each becomes a Python object
first: 14 to 20 µs for 512 of them; their bytes take 1 µs.
"""

import numpy as np
from fovea.v1 import model_pb2
from numpy.typing import NDArray

# On the wire, whatever the machine: https://protobuf.dev/programming-guides/encoding
_DTYPE = np.dtype("<f4")
_TAG = bytes((model_pb2.Vector.VALUES_FIELD_NUMBER << 3 | 2,))


def array_of(vector: model_pb2.Vector) -> NDArray[np.float32]:
    """Its numbers, float32 [values], the caller's own."""
    count = len(vector.values)
    # Written anew, so however they came they are one field, and what this version doesn't know is behind it.
    content = vector.SerializeToString()
    head = _head(count)
    if not content.startswith(head):  # none, or a library that writes another order
        return np.fromiter(vector.values, np.float32, count)
    return np.frombuffer(content, _DTYPE, count, len(head)).astype(np.float32)


def vector_of(array: NDArray[np.float32]) -> model_pb2.Vector:
    """The message of float32 [values]."""
    content = array.astype(_DTYPE, copy=False).tobytes()
    return model_pb2.Vector.FromString(_head(len(array)) + content)


def _head(count: int) -> bytes:
    """What comes before so many numbers: the field's tag, and its length as a varint."""
    head, size = bytearray(_TAG), count * _DTYPE.itemsize
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
