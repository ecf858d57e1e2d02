"""The record of truth of the embedded engine: one SQLite database, from which all else is rebuilt."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import IndexUnusable
from service.retrieval.checks import Batch
from service.retrieval.index import CollectionSpec
from service.retrieval.migrations import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION
from service.retrieval.stored import batch_of, number_type, schema_text, spec_of, vector_bytes

FILE_NAME = "record.sqlite"
# A 512-d float32 vector takes 2 kB: at SQLite's default of 4 kB each would have a page to itself.
_PAGE_BYTES = 16 * 1024
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_READ_BYTES = 1024 * 1024
# No collection can be named with a space.
_DROP = "UPDATE collections SET dropped = 1, name = 'dropped ' || key WHERE key = ?"


class Record:
    """Collections and items on disk; a change is on disk, flushed, when its method returns.

    Not for several threads at once, but for `ids_after`: the index calls it under its write lock. Any failure
    of SQLite is IndexUnusable, and a failed change has changed nothing.
    """

    def __init__(self, path: Path) -> None:
        """Open the database; makes an empty one where there is none, and migrates an older one.

        Raises:
            IndexUnusable: broken, another program's, or of a newer schema; names the path.
        """
        self._path = path
        with self._translated():
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._set_up()
                # Readers of a write-ahead log and the writer don't wait for one another.
                self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                self._reading = threading.Lock()
            except BaseException:
                self._connection.close()
                raise

    def _set_up(self) -> None:
        execute = self._connection.execute
        version, application = (
            _number(execute("PRAGMA user_version")),
            _number(execute("PRAGMA application_id")),
        )
        empty = _number(execute("SELECT count(*) FROM sqlite_master")) == 0
        if not empty and application != APPLICATION_ID:
            raise IndexUnusable(f"{self._path}: another program's database; choose another folder")
        if version > SCHEMA_VERSION:
            raise IndexUnusable(
                f"{self._path}: schema version {version}; this release reads up to {SCHEMA_VERSION}: "
                "use the newer release that wrote it"
            )
        if empty:
            execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        if execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise IndexUnusable(
                f"{self._path}: this file system can't hold SQLite's write-ahead log; choose a local folder"
            )
        # The log is flushed at every commit; WAL's usual NORMAL would lose the last ones with the power.
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA foreign_keys = ON")
        execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        for number in range(version, SCHEMA_VERSION):
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1};"
                f"PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
            )
        last = execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'items'").fetchone()[0]
        self._next_sequence = 1 + int(last or 0)

    def collections(self) -> list[tuple[int, CollectionSpec]]:
        """Each collection's key and spec, by name."""
        with self._translated():
            rows = self._connection.execute(
                "SELECT key, name, dimension, metric, fingerprint, attributes, storage FROM collections "
                "WHERE NOT dropped ORDER BY name"
            ).fetchall()
        try:
            return [(key, spec_of(*fields)) for key, *fields in rows]
        except ValueError as error:
            raise self._broken(str(error)) from error

    def sequences(self, key: int) -> NDArray[np.int64]:
        """The sequence numbers of a collection's items, rising."""
        with self._translated():
            cursor = self._connection.execute(
                "SELECT sequence FROM items WHERE collection = ? ORDER BY sequence", (key,)
            )
            return np.fromiter((sequence for (sequence,) in cursor), np.int64)

    def holds(self, key: int, spec: CollectionSpec, sequence: int, name: str, vector: NDArray[Any]) -> bool:
        """Whether this item has this sequence number."""
        with self._translated():
            row = self._connection.execute(
                "SELECT collection, id, vector FROM items WHERE sequence = ?", (sequence,)
            ).fetchone()
        return bool(row == (key, name, vector.astype(number_type(spec), copy=False).tobytes()))

    def read(
        self, key: int, spec: CollectionSpec, after: int = 0, before: int = 2**63 - 1
    ) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """A collection's items and their sequence numbers, in that order, about a megabyte at a time.

        Args:
            key: the collection's.
            spec: likewise.
            after: only items with greater sequence numbers.
            before: only items with smaller ones.
        """
        rows_at_once = max(1, _READ_BYTES // vector_bytes(spec))
        with self._translated():
            cursor = self._connection.execute(
                "SELECT id, vector, attributes, sequence FROM items "
                "WHERE collection = ? AND sequence > ? AND sequence < ? ORDER BY sequence",
                (key, after, before),
            )
            try:
                while rows := cursor.fetchmany(rows_at_once):
                    try:
                        batch = batch_of(rows, spec)
                    except ValueError as error:
                        raise self._broken(str(error)) from error
                    yield batch
            finally:
                cursor.close()  # an open one keeps the database from being closed

    def ids_after(self, key: int, after: str, limit: int) -> list[str]:
        """The next ids of a collection by code point, at most so many; for any thread."""
        with self._reading, self._translated():
            # SQLite compares text by its bytes of UTF-8, which have the order of code points.
            rows = self._reader.execute(
                "SELECT id FROM items WHERE collection = ? AND id > ? ORDER BY id LIMIT ?",
                (key, after, limit),
            ).fetchall()
        return [name for (name,) in rows]

    def create(self, spec: CollectionSpec) -> int:
        """Add a collection; returns its key."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO collections (name, dimension, metric, fingerprint, attributes, storage) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    spec.name,
                    spec.dimension,
                    spec.metric.value,
                    spec.fingerprint,
                    schema_text(spec),
                    spec.storage.value,
                ),
            )
            return _number(self._connection.execute("SELECT last_insert_rowid()"))

    def rename(self, key: int, name: str, *, replaced: int | None = None) -> None:
        """Give a collection a name, which another one loses, dropped."""
        with self._transaction():
            if replaced is not None:
                self._connection.execute(_DROP, (replaced,))
            self._connection.execute("UPDATE collections SET name = ? WHERE key = ?", (name, key))

    def drop(self, key: int) -> None:
        """Remove a collection; its items take room until they are swept."""
        with self._transaction():
            self._connection.execute(_DROP, (key,))

    def sweep(self, count: int) -> bool:
        """Remove so many items of dropped collections; whether there may be more."""
        with self._transaction():
            execute = self._connection.execute
            row = execute("SELECT key FROM collections WHERE dropped LIMIT 1").fetchone()
            if row is None:
                return False
            swept = execute(
                "DELETE FROM items WHERE sequence IN "
                "(SELECT sequence FROM items WHERE collection = ? LIMIT ?)",
                (*row, count),
            ).rowcount
            if swept < count:
                execute("DELETE FROM collections WHERE key = ?", row)
            return True

    def next_sequences(self, count: int) -> NDArray[np.int64]:
        """The numbers that the next write of so many items takes."""
        return np.arange(self._next_sequence, self._next_sequence + count)

    def write(self, key: int, spec: CollectionSpec, batch: Batch) -> None:
        """Write items in their order, replacing those of the same id; they take the next sequences."""
        vectors = batch.vectors.astype(number_type(spec), copy=False)
        sequences = self.next_sequences(len(batch.ids)).tolist()
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO items (sequence, collection, id, vector, attributes) "
                "VALUES (?, ?, ?, ?, ?)",
                (
                    (sequence, key, name, vector.tobytes(), attributes)
                    for sequence, name, vector, attributes in zip(
                        sequences, batch.ids, vectors, batch.attributes, strict=True
                    )
                ),
            )
        self._next_sequence += len(batch.ids)

    def delete(self, key: int, ids: Sequence[str]) -> None:
        """Remove items."""
        with self._transaction():
            self._connection.executemany(
                "DELETE FROM items WHERE collection = ? AND id = ?", ((key, name) for name in ids)
            )

    def close(self) -> None:
        """Bring the log into the database file and close it."""
        with self._reading, self._translated():
            try:
                self._reader.close()
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):  # the first error is the one to tell
                        self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            # The state of the machine: a full disk, a lost mount, no permission.
            raise IndexUnusable(f"{self._path}: {error}; nothing was changed by this call") from error
        except sqlite3.Error as error:
            raise self._broken(str(error)) from error

    def _broken(self, reason: str) -> IndexUnusable:
        return IndexUnusable(
            f"{self._path}: broken: {reason}; restore the folder from a backup, or move it away and start "
            "with an empty one"
        )


def _number(cursor: sqlite3.Cursor) -> int:
    return int(cursor.fetchone()[0])
