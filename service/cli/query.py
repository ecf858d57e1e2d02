"""The commands that ask a server: embed, models, search; `classify.py` has the other one."""

import math
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from fovea import (
    Embedding,
    Filter,
    FoveaError,
    GroupBy,
    Model,
    Neighbor,
    NotFound,
    QueryExpansion,
)

from service.cli.connection import (
    collection_option,
    connected,
    exit_status,
    json_option,
    model_options,
    server_options,
)
from service.cli.filter_expression import filter_option
from service.cli.loading import wait_for_collection, wait_for_model
from service.cli.output import print_json, print_table
from service.cli.output_paths import replaceable, replaced
from service.cli.photos import Failures, images_argument, images_only


@click.command()
@images_argument
@model_options()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=replaceable("no .npz file", ".npz"),
    metavar="FILE.npz",
    help="Write `vectors` (float32 [photos, dimension]), `photos`, `model`, `version` and `fingerprint`.",
)
@json_option
@server_options
def embed(
    photos: tuple[str, ...],
    model: str | None,
    version: str | None,
    output: Path | None,
    as_json: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Turn photos into vectors: into a NumPy file, or as JSON lines.

    A photo that can't be used is reported and left out, and the exit status is 1.
    """
    if (output is None) != as_json:
        raise click.UsageError("say where the vectors go: either --output vectors.npz or --json")
    found: list[tuple[str, Embedding]] = []
    with connected(address, timeout_s) as client:
        wait_for_model(client, model, timeout_s)
        failures = Failures(client, model, as_json=as_json)
        results = client.embed_stream(photos, model=model, version=version)
        for photo, result in zip(photos, results, strict=True):
            if isinstance(result, FoveaError):
                failures.add(photo, result)
            elif as_json:
                print_json({"photo": photo, **asdict(result), "vector": result.vector.tolist()})
            else:
                found.append((photo, result))
        failures.close()
    if output is not None and found:
        _write(output, found)
        first = found[0][1]
        click.echo(
            f"{output}: {len(found)} vectors of {len(first.vector)} numbers, "
            f"by {first.model} version {first.version}"
        )
    exit_status(failures.count)


@click.command()
@json_option
@server_options
def models(as_json: bool, address: str, timeout_s: float) -> None:
    """List the server's models, loaded or still loading."""
    with connected(address, timeout_s) as client:
        awaited = client.loading()  # first: what is ready meanwhile is then in both lists, not in none
        found = client.models()
    there = {model.name for model in found}
    loading = [each for each in awaited if each.name not in there]
    if as_json:
        for model in found:
            print_json(asdict(model) | {"state": "ready"})
        for each in loading:
            print_json(asdict(each) | {"state": "loading"})
        return
    if found:
        _print_models(found)
    for each in loading:
        click.echo(f"loading: {each.name} (version {each.version})")


def _print_models(found: list[Model]) -> None:
    header = ("MODEL", "VERSION", "DEFAULT", "ARCHITECTURE", "INPUT", "CLASSES", "EMBEDDING", "RUNS ON")
    print_table(
        header,
        [
            (
                model.name,
                model.version,
                "yes" if model.is_default else "",
                model.architecture,
                f"{model.input_height}×{model.input_width}",
                len(model.labels),
                model.embedding_dimension,
                f"{model.execution_provider.removesuffix('ExecutionProvider')} {model.precision}",
            )
            for model in found
        ],
    )


def _group_by(_: click.Context, __: click.Parameter, given: str | None) -> GroupBy | None:
    if given is None:
        return None
    name, colon, number = given.rpartition(":")
    if not colon:
        return GroupBy(given)
    if not name or not number.isdecimal() or int(number) < 1:
        raise click.BadParameter(f"{given!r}; expected ATTRIBUTE or ATTRIBUTE:N with N of at least 1")
    return GroupBy(name, int(number))


def _expansion(_: click.Context, __: click.Parameter, given: str | None) -> QueryExpansion | None:
    if given is None:
        return None
    number, colon, power = given.partition(":")
    try:
        expansion = QueryExpansion(int(number), float(power) if colon else QueryExpansion.alpha)
    except ValueError:
        expansion = QueryExpansion(0)
    if expansion.neighbors < 1 or not 0 <= expansion.alpha < math.inf:
        raise click.BadParameter(
            f"{given!r}; expected N or N:ALPHA with N of at least 1 and ALPHA of at least 0"
        )
    return expansion


@click.command()
@click.argument("photo", required=False, callback=images_only)
@click.option("--id", "item_id", metavar="ID", help="Look for what is like this stored image instead.")
@collection_option
@click.option("--top-k", type=click.IntRange(1), default=10, show_default=True, help="How many to find.")
@filter_option
@click.option("--min-score", type=float, metavar="SCORE", help="Only images with at least this score.")
@click.option(
    "--group-by",
    metavar="ATTRIBUTE[:N]",
    callback=_group_by,
    help="At most N (default: 1) with one value of the attribute.",
)
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many of the nearest.")
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Of the true nearest to find, where the index is approximate; 1: look at every image.",
)
@click.option(
    "--expand",
    metavar="N[:ALPHA]",
    callback=_expansion,
    help="α query expansion: search again with the photo and its N nearest, each weighted by its score to "
    "the power of ALPHA (default: 3).",
)
@json_option
@server_options
def search(
    photo: str | None,
    item_id: str | None,
    collection: str,
    top_k: int,
    condition: Filter | None,
    min_score: float | None,
    group_by: GroupBy | None,
    offset: int,
    recall: float | None,
    expand: QueryExpansion | None,
    as_json: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Find indexed images like PHOTO.

    The nearest first. Index a folder before: fovea index add FOLDER.
    """
    if (photo is None) == (item_id is None):
        raise click.UsageError("give either a photo or --id")
    with connected(address, timeout_s) as client:
        try:
            if photo is not None:
                wait_for_collection(client, collection, timeout_s)
            neighbors = client.search(
                collection,
                image=photo,
                id=item_id,
                top_k=top_k,
                filter=condition,
                min_score=min_score,
                group_by=group_by,
                offset=offset,
                recall=recall,
                expansion=expand,
            )
        except OSError as error:
            raise click.ClickException(f"{photo} can't be read: {error.strerror or error}") from error
        except NotFound as error:
            hint = "" if item_id else "; index a folder of photos with `fovea index add FOLDER`"
            raise click.ClickException(error.message + hint) from error
    if as_json:
        for neighbor in neighbors:
            print_json(asdict(neighbor))
    elif neighbors:
        _print_neighbors(neighbors)
    else:
        click.echo(_nothing(collection, condition, min_score, offset))


def _nothing(collection: str, condition: Filter | None, min_score: float | None, offset: int) -> str:
    limits = [
        *(["passes the filter"] if condition is not None else []),
        *([f"has a score of at least {min_score:g}"] if min_score is not None else []),
        *([f"comes after the first {offset:,}"] if offset else []),
    ]
    if not limits:
        return f"collection {collection!r} has nothing else to find"
    return f"nothing in collection {collection!r} {' and '.join(limits)}"


def _print_neighbors(neighbors: list[Neighbor]) -> None:
    columns: list[tuple[str, list[object]]] = [
        ("SCORE", [f"{each.score:.4f}" for each in neighbors]),
        ("LABEL", [each.attributes.get("label", "") for each in neighbors]),
        ("ID", [each.id for each in neighbors]),
        ("IMAGE", [each.attributes.get("path", each.id) for each in neighbors]),
    ]
    if not any(columns[1][1]):
        columns = [column for column in columns if column[0] != "LABEL"]
    if columns[-1][1] == columns[-2][1]:  # nothing else is known of them
        columns.pop()
    print_table([name for name, _ in columns], list(zip(*(cells for _, cells in columns), strict=True)))


def _write(path: Path, found: list[tuple[str, Embedding]]) -> None:
    first = found[0][1]
    with replaced(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            vectors=np.stack([embedding.vector for _, embedding in found]),
            photos=np.array([photo for photo, _ in found]),
            model=np.array(first.model),
            version=np.array(first.version),
            fingerprint=np.array(first.fingerprint),
        )


COMMANDS: tuple[click.Command, ...] = (embed, models, search)
