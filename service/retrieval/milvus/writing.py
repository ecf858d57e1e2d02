"""Writes to a collection, one at a time within this process."""

import threading
import time
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from service.retrieval.checks import Batch
from service.retrieval.filters import Filter
from service.retrieval.milvus import reading
from service.retrieval.milvus.conditions import translated
from service.retrieval.milvus.server import Server
from service.retrieval.milvus.table import ID, VECTOR, Table

# Milvus takes messages of 64 MiB; beyond, a write is several.
_MAX_BYTES = 48 * 1024 * 1024
_OVERHEAD_BYTES = 64  # of a row, at most


class Clock:
    """Numbers for the order of writing: the time, made to rise. Servers' writes go by their clocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0

    def take(self, count: int) -> int:
        """The first of so many numbers in a row."""
        with self._lock:
            first = max(self._next, time.time_ns())
            self._next = first + count
            return first


def write(server: Server, table: Table, batch: Batch, first_sequence: int) -> None:
    """Write items, in their order, replacing those of the same id."""
    some: list[dict[str, Any]] = []
    size = 0
    for row in table.rows(batch, first_sequence):
        bytes_of_row = _OVERHEAD_BYTES + row[VECTOR].nbytes
        bytes_of_row += sum(len(value.encode()) for value in row.values() if isinstance(value, str))
        if some and size + bytes_of_row > _MAX_BYTES:
            server.call("upsert", table.name, some)
            some, size = [], 0
        some.append(row)
        size += bytes_of_row
    if some:
        server.call("upsert", table.name, some)


def delete(server: Server, table: Table, ids: Sequence[str]) -> int:
    """Remove items by id; returns how many were there."""
    removed = 0
    for some in reading.chunks(reading.known_ids(ids)):
        # Milvus counts those that were asked for.
        there = [row[ID] for row in reading.rows_of(server, table, some, [ID])]
        if there:
            server.call("delete", table.name, ids=there)
        removed += len(there)
    return removed


def delete_matching(server: Server, table: Table, condition: Filter) -> int:
    """Remove the items that a filter keeps; returns how many."""
    removed = 0
    expression = translated(table, condition)
    for rows in reading.pages(server, table, expression, [ID], at_once=reading.MAX_ROWS):
        server.call("delete", table.name, ids=list(map(itemgetter(ID), rows)))
        removed += len(rows)
    return removed
