"""`fovea index export`: a collection into a Parquet file, whatever engine it is in."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from fovea import Client, Collection

from service.cli.bulk.progress import progress
from service.cli.bulk.spec import file_errors, spec_of
from service.cli.connection import collection_option, connected, server_options
from service.cli.output_paths import replaceable
from service.retrieval.index import Item
from service.retrieval.parquet_file import SUFFIX, write_collection

_ITEMS_AT_ONCE = 1000


@click.command()
@click.argument(
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=replaceable(f"no {SUFFIX} file", SUFFIX),
    metavar="FILE.parquet",
)
@collection_option
@server_options
def export(file: Path, collection: str, address: str, timeout_s: float) -> None:
    """Write a collection to FILE.parquet.

    The file has each item's id, vector and attributes, and what the collection is made of; `fovea index
    import` makes a collection of it, on any server and engine. It is there whole or not at all, and replaces
    the one of that name. What is written to the collection meanwhile may be in it or not; for a copy of one
    moment see `fovea index snapshot`.
    """
    with connected(address, timeout_s) as client:
        there = client.collection(collection)

        def check() -> None:
            if _kind(client.collection(collection)) != _kind(there):
                raise click.ClickException(
                    f"collection {collection!r} was replaced by another while it was read; export it again"
                )

        with file_errors(), progress("items") as bar:
            task = bar.add_task("exporting", total=there.count)
            batches = _batches(client, collection)

            def counted() -> Iterator[list[Item]]:
                for batch in batches:
                    yield batch
                    bar.advance(task, len(batch))

            count = write_collection(file, spec_of(there), counted(), check)
            bar.update(task, total=count)
    click.echo(f"wrote {count:,} items of collection {collection!r} to {file}")


def _kind(collection: Collection) -> Collection:
    """What doesn't change as long as it is the same collection."""
    return replace(collection, count=0, index_type="", model="", version="")


def _batches(client: Client, collection: str) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in client.scan(collection, include_vectors=True, page_size=_ITEMS_AT_ONCE):
        vector = item.vector if item.vector is not None else np.zeros(0, np.float32)
        batch.append(Item(item.id, vector, item.attributes))
        if len(batch) >= _ITEMS_AT_ONCE:
            yield batch
            batch = []
    yield batch
