"""Writes to a locked collection."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from psycopg.sql import SQL

from service.retrieval.checks import Batch, unpack_attributes
from service.retrieval.filters import Filter
from service.retrieval.pgvector import catalog, vectors
from service.retrieval.pgvector.conditions import Conditions
from service.retrieval.pgvector.database import Cursor
from service.retrieval.pgvector.table import Table

# Of one statement, so that none comes near its deadline.
_ITEMS, _VALUES = 1000, 2 * 1024 * 1024


def write(cursor: Cursor, table: Table, batch: Batch) -> Table:
    """Write items, in their order, replacing those of the same id; returns the collection as it is then.

    Replaced ones are deleted first: all of an item changes, and COPY can't replace.
    """
    spec = table.spec
    at_once = max(1, min(_ITEMS, _VALUES // spec.dimension))
    columns = table.columns
    copy = SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        table.name, SQL(", ").join([name for name, _ in columns])
    )
    for start in range(0, len(batch.ids), at_once):
        part = slice(start, start + at_once)
        replaced = _delete_ids(cursor, table, batch.ids[part])
        packed = vectors.pack(batch.vectors[part], spec.storage)
        with cursor.copy(copy) as rows:
            rows.set_types([kind for _, kind in columns])
            for name, vector, text in zip(batch.ids[part], packed, batch.attributes[part], strict=True):
                values = unpack_attributes(text) if spec.attributes else {}
                rows.write_row(
                    (name, vector, text, *(values.get(attribute) for attribute in spec.attributes))
                )
        norms = np.linalg.norm(batch.vectors[part].astype(np.float64), axis=1)
        table = replace(
            table,
            count=table.count + len(packed) - replaced,
            smallest_norm=min(table.smallest_norm, float(norms.min())),
            largest_norm=max(table.largest_norm, float(norms.max())),
        )
    catalog.note_write(cursor, table)
    return table


def delete(cursor: Cursor, table: Table, ids: Sequence[str]) -> int:
    """Remove items by id; returns how many were there."""
    removed = _delete_ids(cursor, table, ids)
    catalog.note_write(cursor, replace(table, count=table.count - removed))
    return removed


def delete_matching(cursor: Cursor, table: Table, condition: Filter) -> int:
    """Remove the items that a filter keeps; returns how many."""
    where = Conditions(table, condition)
    query = SQL("DELETE FROM {} WHERE {}").format(table.name, where.sql)
    removed = cursor.execute(query, where.parameters).rowcount
    catalog.note_write(cursor, replace(table, count=table.count - removed))
    return removed


def _delete_ids(cursor: Cursor, table: Table, ids: Sequence[str]) -> int:
    query = SQL("DELETE FROM {} WHERE id = ANY(%s::text[])").format(table.name)
    return cursor.execute(query, (list(ids),)).rowcount
