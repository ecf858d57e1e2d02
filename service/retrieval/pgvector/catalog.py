"""The table of collections."""

import json
from typing import Any

from psycopg.sql import SQL, Identifier

from service.errors import CollectionNotFound
from service.retrieval.collection_names import not_found, taken
from service.retrieval.index import CollectionSpec, Metric, Storage
from service.retrieval.pgvector.database import Cursor
from service.retrieval.pgvector.table import Table
from service.retrieval.schema import AttributeType

_SELECT = """
    SELECT key, name, dimension, metric, fingerprint, storage, attributes, count, smallest_norm,
        largest_norm,
        EXISTS (
            SELECT FROM pg_index WHERE indexrelid = to_regclass('items_' || key || '_hnsw') AND indisvalid
        )
    FROM collections
"""


def find(cursor: Cursor, name: str) -> Table:
    """A collection by name.

    Raises:
        CollectionNotFound: lists those there are.
    """
    return _found(cursor, name, "")


def lock(cursor: Cursor, name: str) -> Table:
    """A collection that nobody else writes to, drops or renames until this transaction ends.

    Writes to one collection come one after the other, so numbers of its sequence are in the order in which
    they are seen, and two writers never wait for each other.

    Raises:
        CollectionNotFound: lists those there are.
    """
    try:
        return _found(cursor, name, "FOR UPDATE")
    except CollectionNotFound:
        # One that took the name while this waited for the one before has it in a new look only.
        return _found(cursor, name, "FOR UPDATE")


def by_key(cursor: Cursor, key: int) -> Table | None:
    """The collection of that key, whatever its name; None: it was dropped."""
    rows = cursor.execute(f"{_SELECT} WHERE key = %s", (key,)).fetchall()
    return _table(rows[0]) if rows else None


def list_all(cursor: Cursor) -> list[Table]:
    """All collections, by name."""
    return [_table(row) for row in cursor.execute(_SELECT + " ORDER BY name")]


def add(cursor: Cursor, spec: CollectionSpec) -> None:
    """Make a collection and its table.

    Raises:
        CollectionExists: the name is taken.
    """
    cursor.execute(
        "INSERT INTO collections (name, dimension, metric, fingerprint, storage, attributes) "
        "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING RETURNING key",
        (
            spec.name,
            spec.dimension,
            spec.metric.value,
            spec.fingerprint,
            spec.storage.value,
            json.dumps([[name, kind.value] for name, kind in spec.attributes.items()]),
        ),
    )
    row = cursor.fetchone()
    if row is None:
        raise taken(spec.name)
    for statement in Table(row[0], spec).create():
        cursor.execute(statement)


def remove(cursor: Cursor, table: Table) -> None:
    """Forget a locked collection; an index that is being built for it is given up.

    Its table is an orphan from now on. Who drops a table waits for those that read it, and everybody else for
    him, so that is left for later.
    """
    cursor.execute("DELETE FROM collections WHERE key = %s", (table.key,))
    cursor.execute(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s)",
        (f"items_{table.key}",),
    )


def orphans(cursor: Cursor) -> list[int]:
    """The keys of collections that were removed, and whose tables are still there."""
    return [
        key
        for (key,) in cursor.execute(
            "SELECT key FROM (SELECT substr(relname, 7)::bigint AS key FROM pg_class "
            "WHERE relnamespace = to_regnamespace(current_schema()) AND relkind = 'r' "
            "AND relname ~ '^items_[0-9]+$') AS tables WHERE key NOT IN (SELECT key FROM collections)"
        )
    ]


def drop_orphan(cursor: Cursor, key: int, lock_timeout_ms: int) -> None:
    """Drop the table of a collection that was removed.

    Raises:
        LockNotAvailable: it is still being read.
    """
    cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{lock_timeout_ms}",))
    cursor.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(f"items_{key}")))


def rename(cursor: Cursor, table: Table, name: str) -> None:
    """Give a locked collection another name.

    Raises:
        CollectionExists: the name is taken.
    """
    cursor.execute(
        "UPDATE collections SET name = %s WHERE key = %s "
        "AND NOT EXISTS (SELECT FROM collections WHERE name = %s)",
        (name, table.key, name),
    )
    if cursor.rowcount == 0:
        raise taken(name)


def note_write(cursor: Cursor, table: Table) -> None:
    """Note what a write made of a locked collection: its count, and its vectors' norms."""
    cursor.execute(
        "UPDATE collections SET count = %s, smallest_norm = %s, largest_norm = %s WHERE key = %s",
        (table.count, table.smallest_norm, table.largest_norm, table.key),
    )


def _found(cursor: Cursor, name: str, locking: str) -> Table:
    # A name that text can't hold is nobody's.
    rows = cursor.execute(f"{_SELECT} WHERE name = %s {locking}", (_text(name),)).fetchall()
    if not rows:
        raise not_found(name, (row[0] for row in cursor.execute("SELECT name FROM collections")))
    return _table(rows[0])


def _text(name: str) -> str:
    return name if isinstance(name, str) and name.isprintable() else ""


def _table(row: tuple[Any, ...]) -> Table:
    key, name, dimension, metric, fingerprint, storage, attributes, *state = row
    spec = CollectionSpec(
        name,
        dimension,
        Metric(metric),
        fingerprint,
        {attribute: AttributeType(kind) for attribute, kind in json.loads(attributes)},
        Storage(storage),
    )
    return Table(key, spec, *state)
