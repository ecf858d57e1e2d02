"""`fovea index augment`: a collection whose vectors each take in their neighbours."""

from collections.abc import Iterator, Sequence
from itertools import islice

import click
import numpy as np
from fovea import Client, Collection, FoveaError, Item, Neighbor, NotFound, Query, StoredItem
from numpy.typing import NDArray

from service.cli.bulk.progress import progress
from service.cli.connection import connected, server_options
from service.cli.output import count_of_images
from service.cli.quality.evaluation import unit

# Queries and vectors of neighbours that are held at once, whatever the number of neighbours.
_MAX_NEIGHBORS = 1000
_ITEMS_AT_ONCE = 64


@click.command("augment")
@click.option("--collection", required=True, metavar="NAME", help="Whose vectors are augmented; it stays.")
@click.option("--into", required=True, metavar="NAME", help="The collection that is made.")
@click.option(
    "--neighbors",
    type=click.IntRange(1, _MAX_NEIGHBORS),
    default=10,
    show_default=True,
    help="How many of the nearest each vector takes in.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1000),
    default=3.0,
    show_default=True,
    help="Each neighbour weighs its cosine to this power; 0: all alike.",
)
@server_options
def augment_command(
    collection: str, into: str, neighbors: int, alpha: float, address: str, timeout_s: float
) -> None:
    """Make a collection of vectors averaged with their neighbours.

    Database augmentation: each vector becomes the normalised sum of itself and of its nearest, each weighted
    by its cosine to the power of ALPHA (one below 0 counts as 0). Pictures whose neighbours are of their kind
    are then found more surely; rare ones may be drowned: compare both collections with `fovea index
    evaluate`.

    The new collection has the same model, so pictures and vectors search it as they search the first one; but
    what is added to it later isn't augmented: make it anew from the first. If the command fails there is no
    new collection.
    """
    if collection == into:
        raise click.UsageError(f"--into is {into!r}, the collection itself; name another one")
    with connected(address, timeout_s) as client:
        source = client.collection(collection)
        if source.metric != "cosine":
            raise click.ClickException(
                f"collection {collection!r} has the metric {source.metric}; augmentation is for cosine"
            )
        client.create_collection(
            into,
            dimension=source.dimension,
            fingerprint=source.fingerprint,
            attributes=dict(source.attributes),  # type: ignore[arg-type]  # as the server said them
            storage=source.storage,
        )
        try:
            with progress("items") as bar:
                task = bar.add_task("augmenting", total=source.count)
                items = _augmented(client, source, neighbors, alpha)
                for written in client.upsert_stream(into, items, fingerprint=source.fingerprint or None):
                    if written.error is not None:
                        raise written.error
                    bar.advance(task)
            made = client.collection(into)
        except BaseException:
            _drop(client, into)
            raise
    click.echo(f"collection {into!r} has {count_of_images(made.count)} of {collection!r}, augmented")


def _augmented(client: Client, source: Collection, neighbors: int, alpha: float) -> Iterator[Item]:
    stored = client.scan(source.name, include_vectors=True)
    while batch := list(islice(stored, _ITEMS_AT_ONCE)):
        found = _neighbors(client, source, batch, neighbors)
        wanted = list(dict.fromkeys(each.id for one in found for each in one))
        vectors = {
            item.id: item.vector
            for item in client.get(source.name, wanted, include_vectors=True)
            if item.vector is not None
        }
        for item, nearest in zip(batch, found, strict=True):
            # One that was deleted meanwhile has no vector.
            there = [(vectors[each.id], each.score) for each in nearest if each.id in vectors]
            yield Item(item.id, vector=augmented(_vector(item), there, alpha), attributes=item.attributes)


def augmented(
    vector: NDArray[np.float32], nearest: Sequence[tuple[NDArray[np.float32], float]], alpha: float
) -> NDArray[np.float32]:
    """The normalised weighted sum.

    Database-side augmentation is of Arandjelović & Zisserman 2012 ("Three things everyone should know to
    improve object retrieval", section 4), who add the neighbours unweighted; Gordo et al. 2017 ("End-to-end
    learning of deep visual representations for image retrieval", section 5.2) weigh them by their rank, and
    the power of the cosine as a weight is of Radenović et al. 2019 (arXiv:1711.02512, section 3.4). As no
    weight is below 0, the sum is never zero.

    Args:
        vector: float32 [dimension], of unit length.
        nearest: vectors of unit length with their cosines, without the vector itself.
        alpha: 0 or more.

    Returns:
        float32 [dimension], of unit length.
    """
    total = vector.astype(np.float64)
    for other, cosine in nearest:
        if cosine > 0:
            total += cosine**alpha * other
    return np.asarray(unit(total[None].astype(np.float32))[0], np.float32)


def _neighbors(
    client: Client, source: Collection, batch: Sequence[StoredItem], count: int
) -> list[list[Neighbor]]:
    """Of each item, without itself; none of one that was deleted meanwhile."""
    found: list[list[Neighbor]] = []
    for result in client.search_batch(source.name, [Query(id=item.id) for item in batch], top_k=count):
        if isinstance(result, FoveaError) and not isinstance(result, NotFound):
            raise result
        found.append([] if isinstance(result, FoveaError) else result)
    return found


def _vector(item: StoredItem) -> NDArray[np.float32]:
    if item.vector is None:
        raise click.ClickException(f"item {item.id!r} came without its vector")
    return item.vector


def _drop(client: Client, name: str) -> None:
    try:
        client.drop_collection(name)
    except FoveaError as error:
        click.secho(f"collection {name!r} is left behind: {error.message}", fg="red", err=True)
