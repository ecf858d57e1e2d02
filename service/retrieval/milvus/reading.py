"""Items read by id, page by page, or all of them. Every read sees all that was acknowledged before it."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.retrieval.checks import MAX_ATTRIBUTES_BYTES
from service.retrieval.filters import Filter
from service.retrieval.index import Item
from service.retrieval.milvus.conditions import TRUE, ids_in, quoted, translated
from service.retrieval.milvus.server import Server
from service.retrieval.milvus.table import (
    ATTRIBUTES,
    ID,
    MAX_ID_BYTES,
    SEQUENCE,
    VECTOR,
    Table,
    attributes_text,
    items_of,
)
from service.retrieval.replies import bytes_of_vector, check_reply_size, fewer_ids, first_of
from service.retrieval.schema import is_text

# What one query may return, which Milvus bounds by 16,384; about 16 MiB of vectors.
MAX_ROWS, _MAX_VALUES = 4096, 4 * 1024 * 1024
# Ids in one expression.
_IDS = 1000
_END = 2**63 - 1
# How often `walk` looks for what was written while it read.
_MOST_PASSES = 100

Row = dict[str, Any]


def query(
    server: Server,
    table: Table,
    expression: str,
    fields: Sequence[str],
    *,
    consistency: str = "Strong",
    **named: Any,
) -> list[Row]:
    """Rows that an expression keeps."""
    rows = server.call(
        "query",
        table.name,
        filter=expression,
        output_fields=list(fields),
        consistency_level=consistency,
        **named,
    )
    return list(rows)


def known_ids(ids: Sequence[str]) -> list[str]:
    """Those that an item can have, each once: the others' items aren't there."""
    return [name for name in dict.fromkeys(ids) if is_text(name) and name and "\0" not in name]


def rows_of(
    server: Server, table: Table, ids: Sequence[str], fields: Sequence[str], expression: str = TRUE
) -> Iterator[Row]:
    """The rows of those ids that are there and that an expression keeps, in any order."""
    at_once = min(_IDS, rows_at_once(table)) if VECTOR in fields else _IDS
    for start in range(0, len(ids), at_once):
        part = ids_in(ids[start : start + at_once])
        yield from query(server, table, part if expression == TRUE else f"{part} and {expression}", fields)


def settled(
    server: Server, table: Table, ids: Sequence[str], fields: Sequence[str], expression: str = TRUE
) -> dict[str, Row]:
    """As `rows_of`, by id; all are read once more where some aren't there.

    Milvus replaces an item by deleting it and writing it anew, and who reads may see it gone in between. All:
    what is read at two moments may show a write in part.
    """
    rows = {row[ID]: row for row in rows_of(server, table, ids, fields, expression)}
    if len(rows) < len(ids):
        rows = {row[ID]: row for row in rows_of(server, table, ids, fields, expression)}
    return rows


def get(
    server: Server, table: Table, ids: Sequence[str], *, include_vectors: bool, max_reply_bytes: int | None
) -> list[Item]:
    """See `Index.get`."""
    distinct = known_ids(ids)
    vector_bytes = bytes_of_vector(table.spec.dimension, include_vectors=include_vectors)
    largest = vector_bytes + MAX_ID_BYTES + MAX_ATTRIBUTES_BYTES
    if max_reply_bytes is not None and len(ids) * largest > max_reply_bytes:
        times = Counter(ids)
        sizes = (
            times[row[ID]] * (vector_bytes + bytes_of(row))
            for row in rows_of(server, table, distinct, [ID, ATTRIBUTES])
        )
        check_reply_size(sum(sizes), max_reply_bytes, fewer_ids(include_vectors=include_vectors))
    fields = [ID, ATTRIBUTES, *([VECTOR] if include_vectors else [])]
    rows = settled(server, table, distinct, fields)
    return items_of([rows[name] for name in ids if name in rows])


def vectors_of(server: Server, table: Table, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """See `Index.vectors`."""
    rows = settled(server, table, known_ids(ids), [ID, VECTOR])
    return {name: np.array(row[VECTOR], np.float32) for name, row in rows.items()}


def count(server: Server, table: Table, expression: str, *, consistency: str = "Strong") -> int:
    """How many items an expression keeps; one that is being replaced may count several times."""
    [row] = query(server, table, expression, ["count(*)"], consistency=consistency)
    return int(row["count(*)"])


def pages(
    server: Server, table: Table, expression: str, fields: Sequence[str], *, after: str = "", at_once: int
) -> Iterator[list[Row]]:
    """Rows that an expression keeps, in the order of their ids."""
    while True:
        rows = query(
            server,
            table,
            f"{ID} > {quoted(after)} and {expression}",
            fields,
            limit=at_once,
            # Else they come in any order, and not those with the lowest ids.
            iterator="True",
            reduce_stop_for_best="True",
        )
        rows = sorted(rows, key=itemgetter(ID))[:at_once]
        if rows:
            yield rows
        if len(rows) < at_once:
            return
        after = rows[-1][ID]


def page(
    server: Server,
    table: Table,
    *,
    after: str,
    limit: int,
    condition: Filter | None,
    include_vectors: bool,
    max_reply_bytes: int | None,
) -> list[Item]:
    """See `Index.scan`."""
    fields = [ID, ATTRIBUTES, *([VECTOR] if include_vectors else [])]
    at_once = min(limit, rows_at_once(table) if include_vectors else MAX_ROWS)
    # No id has a zero byte, so those behind one that has are those behind what comes before the byte.
    start = after.partition("\0")[0]
    read = pages(server, table, translated(table, condition), fields, after=start, at_once=at_once)
    vector_bytes = bytes_of_vector(table.spec.dimension, include_vectors=include_vectors)
    rows = chain.from_iterable(read)
    return items_of(first_of(rows, lambda row: vector_bytes + bytes_of(row), limit, max_reply_bytes))


def everything(server: Server, table: Table) -> Generator[list[Item], None, None]:
    """All items in the order of writing, some at a time; the first ones are read at once.

    What fits one page is of one moment. Beyond, an item that is replaced meanwhile may come as it was, as it
    is, or both; none that is there all the time is missed.
    """
    at_once = rows_at_once(table)
    fields = [ID, SEQUENCE, ATTRIBUTES, VECTOR]
    first = query(server, table, TRUE, fields, limit=at_once + 1)
    if len(first) <= at_once:
        return _one_page(first)
    return _windows(server, table, fields, at_once)


def _one_page(rows: list[Row]) -> Generator[list[Item], None, None]:
    if rows:
        yield items_of(sorted(rows, key=itemgetter(SEQUENCE)))


def _windows(
    server: Server, table: Table, fields: Sequence[str], at_once: int
) -> Generator[list[Item], None, None]:
    """Milvus sorts by nothing but ids, so stretches of the sequence are halved until each fits a page."""
    last = -1
    for _ in range(_MOST_PASSES):
        before = last
        waiting = [(last + 1, _END)]
        while waiting:
            low, high = waiting.pop()
            window = f"{SEQUENCE} >= {low} and {SEQUENCE} < {high}"
            number = count(server, table, window)
            if number == 0:
                continue
            rows = query(server, table, window, fields, limit=at_once + 1) if number <= at_once else []
            if number > at_once or len(rows) > at_once:
                middle = low + (high - low) // 2
                waiting += [(middle, high), (low, middle)]
            elif rows:
                rows.sort(key=itemgetter(SEQUENCE))
                last = rows[-1][SEQUENCE]
                yield items_of(rows)
        if last == before:
            return


def bytes_of(row: Row) -> int:
    """The id and attributes of a row, in bytes of UTF-8."""
    return len(row[ID].encode()) + len(attributes_text(row).encode())


def rows_at_once(table: Table) -> int:
    """How many rows with their vectors one query may return."""
    return max(1, min(MAX_ROWS, _MAX_VALUES // table.spec.dimension))


def chunks(names: Iterable[str], size: int = _IDS) -> Iterator[list[str]]:
    """Some ids at a time."""
    some: list[str] = []
    for name in names:
        some.append(name)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
