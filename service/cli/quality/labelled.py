"""Pictures of a folder with their classes, as vectors."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from fovea import Client, Collection, Embedding, FailedPrecondition, FoveaError, InvalidArgument, NotFound
from numpy.typing import NDArray

from service.cli.bulk.attributes import LABEL, PATH, SHA256
from service.cli.bulk.broken import BrokenList
from service.cli.bulk.entry import Entry, TarMember, Unusable, content_of, digest
from service.cli.bulk.progress import progress
from service.cli.bulk.step import Broken
from service.cli.quality.local_files import place_of

MAX_VECTORS_BYTES = 2 * 1024**3


@dataclass(frozen=True, eq=False)
class Pictures:
    """Vectors, and what is known of the pictures that they are of.

    Attributes:
        ids: of items, or files' paths inside their folder.
        vectors: float32 [pictures, dimension].
        labels: "" where there is none.
        contents: what tells that two are the same picture: the SHA-256 of their file, else its path, else
            "".
        places: the files here; None where there is none.
        fingerprint: of what made the vectors; "" where nobody said.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    labels: list[str]
    contents: list[str]
    places: list[Path | TarMember | None]
    fingerprint: str


def embedded(
    client: Client, entries: Iterable[Entry], model: str | None, version: str | None, broken: BrokenList
) -> Iterator[tuple[Entry, str, Embedding]]:
    """Each picture with its file's SHA-256 and its vector; those that can't be used go to `broken`.

    Raises:
        NotFound, FailedPrecondition: the model isn't there, or makes no embeddings.
    """
    sent: deque[tuple[Entry, str]] = deque()
    unreadable: deque[Broken] = deque()

    def contents() -> Iterator[bytes]:
        for entry in entries:
            try:
                if entry.fault:
                    raise Unusable(entry.fault)
                content = content_of(entry.place)
            except Unusable as error:
                unreadable.append(Broken(entry.id, InvalidArgument(str(error))))
                continue
            sent.append((entry, digest(content)))
            yield content

    for result in client.embed_stream(contents(), model=model, version=version):
        entry, sha256 = sent.popleft()
        if isinstance(result, NotFound | FailedPrecondition):
            raise result
        if isinstance(result, FoveaError):
            broken.add(Broken(entry.id, result))
        else:
            yield entry, sha256, result
    for each in unreadable:
        broken.add(each)


def embed_folder(
    client: Client,
    entries: Iterable[Entry],
    total: int,
    model: str | None,
    version: str | None,
    broken: BrokenList,
) -> Pictures:
    """All pictures of a source.

    Raises:
        click.ClickException: none can be used, or they are too many to compare in memory.
    """
    known: list[tuple[Entry, str]] = []
    vectors: list[NDArray[np.float32]] = []
    fingerprint = ""
    with progress() as bar:
        task = bar.add_task("embedding", total=total)
        for entry, sha256, embedding in embedded(client, entries, model, version, broken):
            if not vectors:
                check_room(total, len(embedding.vector))
            known.append((entry, sha256))
            vectors.append(embedding.vector)
            fingerprint = embedding.fingerprint
            bar.advance(task)
    if not vectors:
        broken.show(broken.count, "files can't be used")
        raise click.ClickException("none of the pictures can be used")
    return Pictures(
        ids=[entry.id for entry, _ in known],
        vectors=np.stack(vectors),
        labels=[str(entry.attributes.get(LABEL) or "") for entry, _ in known],
        contents=[sha256 for _, sha256 in known],
        places=[entry.place for entry, _ in known],
        fingerprint=fingerprint,
    )


def stored_pictures(client: Client, collection: Collection) -> Pictures:
    """All items of a collection.

    Raises:
        click.ClickException: they are too many to compare in memory, or none.
    """
    check_room(collection.count, collection.dimension)
    ids: list[str] = []
    labels: list[str] = []
    contents: list[str] = []
    places: list[Path | TarMember | None] = []
    vectors: list[NDArray[np.float32]] = []
    with progress("items") as bar:
        task = bar.add_task("reading", total=collection.count)
        for item in client.scan(collection.name, include_vectors=True):
            if item.vector is None:
                raise click.ClickException(f"item {item.id!r} came without its vector")
            ids.append(item.id)
            vectors.append(item.vector)
            labels.append(str(item.attributes.get(LABEL, "")))
            contents.append(str(item.attributes.get(SHA256) or item.attributes.get(PATH) or ""))
            places.append(place_of(item.attributes))
            bar.advance(task)
    if not ids:
        raise click.ClickException(f"collection {collection.name!r} is empty")
    return Pictures(ids, np.stack(vectors), labels, contents, places, collection.fingerprint)


def check_room(count: int, dimension: int) -> None:
    """Raises:
    click.ClickException: so many vectors aren't compared in memory.
    """
    size = 4 * count * dimension
    if size > MAX_VECTORS_BYTES:
        raise click.ClickException(
            f"{count:,} vectors of {dimension:,} numbers take {size:,} bytes of memory; expected at most "
            f"{MAX_VECTORS_BYTES:,}; take a part of them"
        )
