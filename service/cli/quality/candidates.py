"""The pictures among which near-duplicates are looked for: of a collection, or of a folder."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from fovea import Client, Collection, InvalidArgument
from numpy.typing import NDArray

from service.cli.bulk.broken import BrokenList
from service.cli.bulk.entry import Entry, TarMember, Unusable
from service.cli.bulk.progress import progress
from service.cli.bulk.step import Broken
from service.cli.quality.labelled import check_room, embedded
from service.cli.quality.local_files import place_of
from service.cli.quality.perceptual_hash import Seen, look
from service.errors import InvalidImage

_LOOKED_AT_ONCE = 256
_IDS_AT_ONCE = 1000
_MAX_THREADS = 16
# Some seconds of products, and 64 MiB of signs.
MAX_PICTURES = 250_000


class Place(NamedTuple):
    """A picture and its file here."""

    id: str
    place: Path | TarMember | None


@dataclass(frozen=True)
class Hashed:
    """Pictures that could be read.

    Attributes:
        ids: of items, or files' paths inside their folder.
        places: their files.
        seen: what a look at them told.
    """

    ids: list[str]
    places: list[Path | TarMember]
    seen: list[Seen]


def stored_places(client: Client, collection: Collection, folder: Path | None) -> Iterable[Place]:
    """Each item with its file, by its attributes, or by its id inside `folder`.

    Raises:
        click.ClickException: `folder` has none of them.
    """
    places = (
        Place(item.id, place_of(item.attributes, item.id, folder)) for item in client.scan(collection.name)
    )
    return places if folder is None else _inside(list(places), folder, collection.name)


def _inside(places: list[Place], folder: Path, collection: str) -> list[Place]:
    elsewhere = sum(each.place != folder / each.id for each in places)
    if places and elsewhere == len(places):
        raise click.ClickException(
            f"{folder} has no picture of collection {collection!r}; expected files named as its ids, for "
            f"instance {folder / places[0].id}. Without a folder they are read from where their path and uri "
            "say; without --collection the folder's own pictures are compared"
        )
    if elsewhere:
        click.echo(
            f"{elsewhere:,} of {len(places):,} images of collection {collection!r} aren't in {folder}: they "
            "are read from where their path and uri say",
            err=True,
        )
    return places


def hash_all(places: Iterable[Place], total: int, broken: BrokenList) -> Hashed:
    """Look at every file, in threads; what can't be read goes to `broken`.

    Raises:
        click.ClickException: there are too many pictures.
    """
    if total > MAX_PICTURES:
        raise click.ClickException(
            f"{total:,} pictures are too many to compare with each other; expected at most {MAX_PICTURES:,}"
        )
    found = Hashed([], [], [])
    waiting = iter(places)
    with (
        ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool,
        progress() as bar,
    ):
        task = bar.add_task("hashing", total=total)
        while batch := list(islice(waiting, _LOOKED_AT_ONCE)):
            for (name, place), seen in zip(batch, pool.map(_look, batch), strict=True):
                if isinstance(seen, Seen) and place is not None:
                    found.ids.append(name)
                    found.places.append(place)
                    found.seen.append(seen)
                else:
                    broken.add(Broken(name, InvalidArgument(str(seen))))
            bar.advance(task, len(batch))
    return found


def _look(each: Place) -> Seen | str:
    """What was seen, or why nothing."""
    if each.place is None:
        return "none of its path and uri is a file on this machine; name the folder with its pictures"
    try:
        return look(each.place)
    except (Unusable, InvalidImage) as error:
        return str(error)


def stored_vectors(
    client: Client, collection: Collection, ids: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """float32 [dimension] by id, of those that are still there.

    Raises:
        click.ClickException: they are too many to compare in memory.
    """
    check_room(len(ids), collection.dimension)
    found: dict[str, NDArray[np.float32]] = {}
    with progress("items") as bar:
        task = bar.add_task("reading", total=len(ids))
        for start in range(0, len(ids), _IDS_AT_ONCE):
            part = ids[start : start + _IDS_AT_ONCE]
            for item in client.get(collection.name, part, include_vectors=True):
                if item.vector is not None:
                    found[item.id] = item.vector
            bar.advance(task, len(part))
    return found


def embedded_vectors(
    client: Client, pictures: Sequence[Place], model: str | None, version: str | None, broken: BrokenList
) -> dict[str, NDArray[np.float32]]:
    """The same, of files that the model embeds now; those that it can't go to `broken`.

    Raises:
        click.ClickException: they are too many to compare in memory.
    """
    entries = (Entry(each.id, each.place, {}) for each in pictures if each.place is not None)
    found: dict[str, NDArray[np.float32]] = {}
    with progress() as bar:
        task = bar.add_task("embedding", total=len(pictures))
        for entry, _, embedding in embedded(client, entries, model, version, broken):
            if not found:
                check_room(len(pictures), len(embedding.vector))
            found[entry.id] = embedding.vector
            bar.advance(task)
    return found
