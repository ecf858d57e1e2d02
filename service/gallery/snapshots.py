"""Snapshots: a collection of one moment as a file in the server's folder, and a collection made of one."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from service.errors import (
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    IndexUnusable,
    NotConfigured,
    SnapshotExists,
    SnapshotNotFound,
    SnapshotUnusable,
    listed,
    shorten,
)
from service.gallery.building import check_free, check_visible, new_name
from service.gallery.threads import IndexThreads, Stop
from service.gallery.writes import Writes
from service.retrieval.checks import MAX_NAME_LENGTH, check_name, is_name
from service.retrieval.index import CollectionInfo, Index
from service.retrieval.parquet_file import SUFFIX, open_collection, write_collection
from service.retrieval.whole_file import remove_partial

_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
log = structlog.get_logger()


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot that is there.

    Attributes:
        name: the file's, without its suffix.
        size_bytes: of the file.
        created_s: UTC, seconds since 1970.
    """

    name: str
    size_bytes: int
    created_s: int


class Snapshots:
    """The snapshots in one folder; deadlines are loop times, in seconds.

    All methods raise NotConfigured where there is no folder, IndexUnusable where it can't be read or
    written, DeadlineExpired and Overloaded.
    """

    def __init__(self, folder: Path | None, index: Index, threads: IndexThreads, writes: Writes) -> None:
        """Make the folder if it is missing, and remove what a kill has left there.

        Raises:
            ConfigError: the folder can't be used.
        """
        self._folder, self._index, self._threads, self._writes = folder, index, threads, writes
        # A name is taken from the moment its file is begun.
        self._lock = threading.Lock()
        self._begun: set[str] = set()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                remove_partial(folder)
            except OSError as error:
                raise ConfigError(
                    f"snapshot_path is {folder}, which can't be used: {error.strerror or error}"
                ) from error

    async def write(self, collection: str, name: str, deadline: float) -> SnapshotFile:
        """Write a collection of one moment to a file.

        Args:
            collection: which.
            name: of the snapshot; empty: the collection's and the time.
            deadline: loop time, in seconds.

        Raises:
            CollectionNotFound, SnapshotExists.
            InvalidRequest: the name can't be used.
        """
        folder = self._there()
        check_visible(collection)
        await self._threads.read(lambda: self._index.describe(collection), deadline)  # is it there?
        if not name:
            moment = time.strftime(_TIME_FORMAT, time.gmtime())
            name = f"{collection[: MAX_NAME_LENGTH - len(moment) - 1]}-{moment}"
        check_name("snapshot", name)
        return await self._threads.upkeep(partial(self._write, folder, collection, name), deadline)

    async def restore(self, name: str, collection: str, deadline: float) -> CollectionInfo:
        """Make a collection of a snapshot; if that fails there is none.

        Args:
            name: the snapshot's.
            collection: the new one's name; empty: that of the one the snapshot was taken of.
            deadline: loop time, in seconds.

        Raises:
            SnapshotNotFound, CollectionExists.
            SnapshotUnusable: the file is damaged, or another program's.
            InvalidRequest: a name can't be used.
        """
        folder = self._there()
        check_name("snapshot", name)
        if collection:
            check_name("collection", collection)
            check_free(collection)
        building = new_name()
        try:
            target = await self._threads.upkeep(
                partial(self._build, folder / f"{name}{SUFFIX}", collection, building), deadline
            )
            await self._writes.rename(building, target, deadline)
        except BaseException:
            self._writes.drop_later(building)
            raise
        return await self._threads.read(lambda: self._index.describe(target), deadline)

    async def list_all(self, deadline: float) -> list[SnapshotFile]:
        """The snapshots there are, by name."""
        folder = self._there()
        return await self._threads.read(lambda: _list(folder), deadline)

    def _there(self) -> Path:
        if self._folder is None:
            raise NotConfigured(
                "this server keeps no snapshots; start it with a folder for them, as --snapshot-path "
                "(FOVEA_SNAPSHOT_PATH)"
            )
        return self._folder

    def _write(self, folder: Path, collection: str, name: str, stop: Stop) -> SnapshotFile:
        path = folder / f"{name}{SUFFIX}"
        with self._lock:
            if name in self._begun or os.path.lexists(path):
                raise SnapshotExists(f"snapshot {shorten(name)} exists already; choose another name")
            self._begun.add(name)
        try:
            generation = None
            while generation != self._writes.generation(collection):  # or its vectors may be another model's
                generation = self._writes.generation(collection)
                spec = self._index.describe(collection).spec
                with self._index.items(collection) as batches:
                    if generation == self._writes.generation(collection):
                        items = write_collection(path, spec, batches, stop.check)
            log.info("snapshot_written", collection=collection, snapshot=name, items=items)
            return _snapshot(path)
        finally:
            with self._lock:
                self._begun.discard(name)

    def _build(self, path: Path, collection: str, building: str, stop: Stop) -> str:
        """In a thread: a collection `building` of what the file has; returns the name that it shall get."""
        if path.is_symlink() or not path.is_file():
            names = [snapshot.name for snapshot in _list(path.parent)]
            raise SnapshotNotFound(f"no snapshot {shorten(path.stem)}; there are: {listed(names)}")
        with open_collection(path) as file:
            target = collection or file.spec.name
            check_free(target)
            self._check_missing(target)
            try:
                self._index.create(replace(file.spec, name=building))
                for items in file.batches():
                    stop.check()
                    self._index.upsert(building, items)
                there = self._index.count(building)
                if there != file.count:
                    raise SnapshotUnusable(
                        f"{path} is damaged: of its {file.count} items only {there} have ids of their own"
                    )
                # After the first step: whoever left before it may have dropped what wasn't there yet.
                stop.check()
            except BaseException:
                with suppress(CollectionNotFound):
                    self._index.drop(building)
                raise
            log.info("snapshot_restored", snapshot=path.stem, collection=target, items=there)
            return target

    def _check_missing(self, collection: str) -> None:
        try:
            self._index.describe(collection)
        except CollectionNotFound:
            return
        raise CollectionExists(
            f"collection {shorten(collection)} exists already; drop it, or choose another name"
        )


def _list(folder: Path) -> list[SnapshotFile]:
    found = []
    try:
        for path in folder.iterdir():
            if path.suffix == SUFFIX and is_name(path.stem) and not path.is_symlink() and path.is_file():
                with suppress(FileNotFoundError):  # somebody has just removed it
                    found.append(_snapshot(path))
    except OSError as error:
        raise IndexUnusable(f"{folder} can't be read: {error.strerror or error}") from error
    return sorted(found, key=lambda snapshot: snapshot.name)


def _snapshot(path: Path) -> SnapshotFile:
    status = path.stat()
    return SnapshotFile(path.stem, status.st_size, int(status.st_mtime))
