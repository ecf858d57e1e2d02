"""Items read by id, page by page, or all of them."""

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.sql import SQL, Composed

from service.errors import InvalidRequest, shorten
from service.retrieval.checks import unpack_attributes
from service.retrieval.filters import Filter
from service.retrieval.index import Item, Neighbor
from service.retrieval.pgvector import vectors
from service.retrieval.pgvector.conditions import Conditions
from service.retrieval.pgvector.database import Cursor
from service.retrieval.pgvector.search import Hit
from service.retrieval.pgvector.table import Table
from service.retrieval.replies import (
    FEWER_NEIGHBORS,
    NUMBER_BYTES,
    bytes_of_vector,
    check_reply_size,
    fewer_ids,
)
from service.retrieval.schema import is_text

_BYTES = SQL("octet_length(id) + octet_length(attributes)")
_MAX_ROWS = 2**31 - 1
# Of the server-side cursor of `walk`: about a megabyte of vectors, and attributes of 64 KiB at most each.
_WALK_VALUES, _WALK_ROWS = 256 * 1024, 256


def known_ids(ids: Sequence[str]) -> list[str]:
    """Those that an item can have, each once: the others' items aren't there."""
    return [name for name in dict.fromkeys(ids) if is_text(name) and "\0" not in name]


def get(
    cursor: Cursor, table: Table, ids: Sequence[str], *, include_vectors: bool, max_reply_bytes: int | None
) -> list[Item]:
    """See `Index.get`."""
    distinct = known_ids(ids)
    times = Counter(ids)
    if max_reply_bytes is not None:
        bytes_each = bytes_of_vector(table.spec.dimension, include_vectors=include_vectors)
        query = SQL("SELECT id, {} FROM {} WHERE id = ANY(%s::text[])").format(_BYTES, table.name)
        sizes = cursor.execute(query, (distinct,)).fetchall()
        total = sum(times[name] * (bytes_each + size) for name, size in sizes)
        check_reply_size(total, max_reply_bytes, fewer_ids(include_vectors=include_vectors))
    query = _select(table, "WHERE id = ANY(%s::text[])", include_vectors)
    rows = {row[0]: row for row in cursor.execute(query, (distinct,))}
    return _items(table, [rows[name] for name in ids if name in rows], include_vectors)


def vectors_of(cursor: Cursor, table: Table, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """See `Index.vectors`."""
    query = _select(table, "WHERE id = ANY(%s::text[])", include_vectors=True)
    rows = cursor.execute(query, (known_ids(ids),)).fetchall()
    return {item.id: item.vector for item in _items(table, rows, include_vectors=True)}


def count(cursor: Cursor, table: Table, condition: Filter) -> int:
    """How many items a filter keeps."""
    where = Conditions(table, condition)
    query = SQL("SELECT count(*) FROM {} WHERE {}").format(table.name, where.sql)
    [[number]] = cursor.execute(query, where.parameters).fetchall()
    return int(number)


def page(
    cursor: Cursor,
    table: Table,
    *,
    after: str,
    limit: int,
    condition: Filter | None,
    include_vectors: bool,
    max_reply_bytes: int | None,
) -> list[Item]:
    """See `Index.scan`.

    Raises:
        InvalidRequest: `after` isn't text.
    """
    if not is_text(after):
        raise InvalidRequest(f"after is {shorten(after)}; expected an id")
    where = Conditions(table, condition)
    # No id has a zero byte, so those behind one that has are those behind what comes before the byte.
    parameters = [after.partition("\0")[0], *where.parameters, min(limit, _MAX_ROWS)]
    ordered = SQL("WHERE id > %s AND {} ORDER BY id LIMIT %s").format(where.sql)
    if max_reply_bytes is None:
        query = SQL("{} {}").format(_select(table, "", include_vectors), ordered)
    else:
        bytes_each = bytes_of_vector(table.spec.dimension, include_vectors=include_vectors)
        query = SQL(
            "SELECT id, attributes{vector} FROM ("
            "SELECT *, sum({size} + %s) OVER earlier AS total, row_number() OVER earlier AS number "
            "FROM (SELECT * FROM {table} {ordered}) AS page "
            "WINDOW earlier AS (ORDER BY id ROWS UNBOUNDED PRECEDING)"
            ") AS sized WHERE total <= %s OR number = 1 ORDER BY id"
        ).format(
            vector=SQL(", embedding" if include_vectors else ""),
            size=_BYTES,
            table=table.name,
            ordered=ordered,
        )
        parameters = [bytes_each, *parameters, max_reply_bytes]
    return _items(table, cursor.execute(query, parameters).fetchall(), include_vectors)


def walk(connection: Connection[Any], table: Table) -> Generator[list[Item], None, None]:
    """All items in the order of writing, some at a time, by a cursor in the database; close it first."""
    at_once = max(1, min(_WALK_ROWS, _WALK_VALUES // table.spec.dimension))
    with connection.cursor("walk", binary=True) as cursor:
        cursor.execute(_select(table, "ORDER BY sequence", include_vectors=True))
        while rows := cursor.fetchmany(at_once):
            yield _items(table, rows, include_vectors=True)


def neighbors(
    cursor: Cursor, table: Table, hits_of_queries: Sequence[Sequence[Hit]], max_reply_bytes: int | None
) -> list[list[Neighbor]]:
    """What was found, with its attributes.

    Raises:
        InvalidRequest: it is larger than `max_reply_bytes`.
    """
    if max_reply_bytes is not None:
        size = sum(NUMBER_BYTES + hit.bytes for hits in hits_of_queries for hit in hits)
        check_reply_size(size, max_reply_bytes, FEWER_NEIGHBORS)
    sequences = list({hit.sequence for hits in hits_of_queries for hit in hits})
    query = SQL("SELECT sequence, attributes FROM {} WHERE sequence = ANY(%s::int8[])").format(table.name)
    attributes: dict[int, Mapping[str, Any]] = {
        sequence: unpack_attributes(text) for sequence, text in cursor.execute(query, (sequences,))
    }
    return [
        [Neighbor(hit.id, hit.score, attributes[hit.sequence]) for hit in hits] for hits in hits_of_queries
    ]


def _select(table: Table, ending: str, include_vectors: bool) -> Composed:
    vector = SQL(", embedding" if include_vectors else "")
    return SQL("SELECT id, attributes{} FROM {} {}").format(vector, table.name, SQL(ending))


def _items(table: Table, rows: Sequence[tuple[Any, ...]], include_vectors: bool) -> list[Item]:
    spec = table.spec
    if include_vectors:
        stored = vectors.unpack([row[2] for row in rows], spec.dimension, spec.storage)
    else:
        stored = np.empty((len(rows), 0), np.float32)
    # Copies: a caller who keeps one vector must not keep all of them.
    return [
        Item(row[0], vector.copy(), unpack_attributes(row[1]))
        for row, vector in zip(rows, stored, strict=True)
    ]
