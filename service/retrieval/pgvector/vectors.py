"""Vectors as pgvector sends and takes them: the dimension and a zero in 16 bits each, then the numbers.

Everything is big-endian: `vector` has float32 numbers, `halfvec` float16.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.errors import UndefinedObject
from psycopg.pq import Format
from psycopg.types import TypeInfo

from service.retrieval.index import Storage

_HEADER = struct.Struct(">HH")


class Vector(bytes):
    """A `vector`, packed."""


class HalfVector(bytes):
    """A `halfvec`, packed."""


# Storage → the column's type, what a packed value is, and the numbers in it.
_KINDS: dict[Storage, tuple[str, type[Vector | HalfVector], str]] = {
    Storage.FLOAT32: ("vector", Vector, ">f4"),
    Storage.FLOAT16: ("halfvec", HalfVector, ">f2"),
}


def type_name(storage: Storage) -> str:
    """The column's type."""
    return _KINDS[storage][0]


def pack(vectors: NDArray[np.float32], storage: Storage) -> list[Vector | HalfVector]:
    """Vectors float32 [vectors, dimension] as parameters of a statement."""
    _, packed, number = _KINDS[storage]
    header = _HEADER.pack(vectors.shape[1], 0)
    return [packed(header + row.tobytes()) for row in vectors.astype(number)]


def unpack(values: Sequence[bytes], dimension: int, storage: Storage) -> NDArray[np.float32]:
    """What was read of a column, float32 [values, dimension]; the caller's own."""
    numbers = np.frombuffer(b"".join(values), _KINDS[storage][2])
    return numbers.reshape(len(values), dimension).astype(np.float32)


class _VectorLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(memoryview(data)[_HEADER.size :])


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Vector | HalfVector) -> Buffer:
        return obj


def register(connection: Connection[Any]) -> None:
    """Teach a connection both types; they are looked for on its search path.

    Raises:
        UndefinedObject: the extension isn't there.
    """
    for name, packed, _ in _KINDS.values():
        info = TypeInfo.fetch(connection, name)
        if info is None:
            raise UndefinedObject(f"type {name} does not exist")
        info.register(connection)
        connection.adapters.register_dumper(packed, type(name, (_VectorDumper,), {"oid": info.oid}))
        connection.adapters.register_loader(info.oid, _VectorLoader)
