"""`fovea index import`: a Parquet file that `fovea index export` or a snapshot wrote, into a collection."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import fovea
from fovea import AlreadyExists, Client, InvalidArgument, NotFound, UpsertResult

from service.cli.bulk.broken import BrokenList
from service.cli.bulk.progress import progress
from service.cli.bulk.spec import file_errors, spec_of
from service.cli.bulk.step import Broken
from service.cli.connection import connected, exit_status, server_options
from service.errors import SnapshotUnusable, VectorMismatch, shorten
from service.retrieval.index import CollectionSpec, Metric
from service.retrieval.parquet_file import CollectionFile, open_collection
from service.retrieval.schema import AttributeType, fits

_ITEMS_AT_ONCE = 32
_MESSAGES_IN_FLIGHT = 4
_TYPES = {bool: AttributeType.BOOL, int: AttributeType.INT, float: AttributeType.FLOAT}


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.parquet")
@click.option("--collection", metavar="NAME", help="Default: that of the one that the file was written of.")
@server_options
def import_(file: Path, collection: str | None, address: str, timeout_s: float) -> None:
    """Write the items of FILE.parquet into a collection.

    The collection is made if it is missing; one that is there must have the same dimension, metric,
    fingerprint and attributes, and keeps its other items. What was stopped half-way may be done again: it
    comes out the same.
    """
    with file_errors(), open_collection(file) as opened, connected(address, timeout_s) as client:
        name = collection or opened.spec.name
        _ensure(client, replace(opened.spec, name=name))
        broken = BrokenList(None)
        with progress("items") as bar:
            task = bar.add_task("importing", total=opened.count)
            for result in _written(client, name, opened):
                if result.error is not None:
                    broken.add(Broken(result.id, result.error))
                bar.advance(task)
        stored = client.count(name)
    broken.show(opened.count, "items weren't imported")
    written = opened.count - broken.count
    click.echo(f"imported {written:,} items of {file}; collection {name!r} has {stored:,}")
    exit_status(broken.count)


def _written(client: Client, name: str, opened: CollectionFile) -> Iterator[UpsertResult]:
    """What became of each item.

    Raises:
        FoveaError: the server ended the stream, or refuses all that comes.
    """
    results = client.upsert_stream(
        name,
        _items(opened),
        fingerprint=opened.spec.fingerprint,
        batch_size=_ITEMS_AT_ONCE,
        window=_MESSAGES_IN_FLIGHT,
    )
    for result in results:
        # Another error is no item's own: the server drains, is full, or the collection is gone.
        if result.error is not None and not isinstance(result.error, InvalidArgument):
            results.close()
            raise result.error
        yield result


def _items(opened: CollectionFile) -> Iterator[fovea.Item]:
    for batch in opened.batches():
        for item in batch:
            for attribute, value in item.attributes.items():
                if not fits(_TYPES.get(type(value), AttributeType.STRING), value):
                    raise SnapshotUnusable(
                        f"item {shorten(item.id)} has attribute {shorten(attribute)} {shorten(value)}; "
                        "expected a text, an int of 64 bits, a finite float or a bool"
                    )
            yield fovea.Item(item.id, vector=item.vector, attributes=item.attributes)


def _ensure(client: Client, spec: CollectionSpec) -> None:
    """Make the collection, or see that the one that is there takes these items."""
    try:
        there = client.collection(spec.name)
    except NotFound:
        try:
            client.create_collection(
                spec.name,
                dimension=spec.dimension,
                metric=spec.metric.value,
                fingerprint=spec.fingerprint,
                attributes={name: declared.value for name, declared in spec.attributes.items()},
                storage=spec.storage.value,
            )
            return
        except AlreadyExists:  # somebody else's command was faster
            there = client.collection(spec.name)
    found = spec_of(there)
    # Vectors may be rounded to less, or kept in more.
    for what in ("dimension", "metric", "fingerprint", "attributes"):
        ours, theirs = _shown(getattr(spec, what)), _shown(getattr(found, what))
        if ours != theirs:
            raise VectorMismatch(
                f"collection {spec.name!r} has {what} {theirs}, and the file has {ours}; import it into "
                "another one with --collection"
            )


def _shown(value: object) -> str:
    match value:
        case Metric():
            return value.value
        case dict():
            declared = (f"{name}={kind.value}" for name, kind in sorted(value.items()))
            return ", ".join(declared) or "(none)"
    return str(value) or "(none)"
