"""`fovea index evaluate`: how well pictures of a class find each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from fovea import Client, Collection

from service.cli.bulk.broken import BrokenList
from service.cli.bulk.folder import Folder
from service.cli.connection import connected, exit_status, json_option, model_options, server_options
from service.cli.output import count_of_images, print_json, print_table
from service.cli.output_paths import replaceable
from service.cli.quality.evaluation import Evaluation, chosen_queries, evaluate
from service.cli.quality.labelled import Pictures, embed_folder, stored_pictures
from service.cli.quality.temporary import temporary_collection

_MAX_ROWS = 200


@click.command("evaluate")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER")
@click.option(
    "--collection",
    metavar="NAME",
    help="Search this one, whose items have a `label`. Default: the pictures of FOLDER search each other.",
)
@model_options("Makes the vectors. Default: the collection's, or the server's.")
@click.option(
    "--queries",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="How many pictures to search for, at random, where there are more.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of queries."
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="What the index is asked for. Default: the server's.",
)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=replaceable("neither a .png nor a .html file", ".png", ".html"),
    metavar="FILE",
    help="Write a contact sheet, .png or .html: queries and their 10 nearest, framed right or wrong.",
)
@click.option(
    "--rows", type=click.IntRange(1, _MAX_ROWS), default=20, show_default=True, help="Queries on the sheet."
)
@click.option("--worst", is_flag=True, help="Those with the fewest right answers, not some of each class.")
@json_option
@server_options
def evaluate_command(
    folder: Path,
    collection: str | None,
    model: str | None,
    version: str | None,
    queries: int,
    seed: int,
    recall: float | None,
    sheet: Path | None,
    rows: int,
    worst: bool,
    as_json: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Measure how well pictures of a class find each other.

    FOLDER has a folder of pictures for each class. Each picture is searched for among the others; one of the
    same class is a right answer. A picture never finds itself, or a copy of its file; one of more than 100
    copies is no query. Recall@K is the share
    of queries with a right answer among the first K; mAP is over the whole ranking, mAP@R over its first R,
    the number of right answers. Beside exact search stands what the index finds, and its share of the true
    10 nearest.

    Without --collection one named fovea-evaluate.… is made meanwhile. One that stays behind, as after a kill
    -9, is dropped by the next such evaluation a day later; `fovea index drop` does so at once.
    """
    source = Folder(folder)
    total = source.count()
    if not total:
        raise click.ClickException(source.empty)
    with connected(address, timeout_s) as client, BrokenList(None) as broken:
        there = client.collection(collection) if collection is not None else None
        if there is not None:
            model, version = _model_of(there, model, version)
        asked = embed_folder(client, source.entries(), total, model, version, broken)
        with _searched(client, there, asked) as (searched, gallery):
            chosen, able = chosen_queries(asked, gallery, queries, seed)
            if not chosen:
                raise click.ClickException(_nothing_to_find(source.name, there))
            result = evaluate(client, searched, asked, gallery, chosen, recall)
    broken.show(total, "files can't be used")
    unlabelled = sum(not label for label in gallery.labels)
    facts = {
        "queries": len(chosen),
        "possible_queries": able,
        "images": len(gallery.ids),
        "classes": len({asked.labels[row] for row in chosen}),
        "unlabelled": unlabelled,
        "index_type": searched.index_type,
        "exact": result.exact.named(),
        "index": {name: value for name, value in result.index.named().items() if not name.startswith("map")},
        "index_recall_at_10": result.index_recall,
    }
    about = f"{len(chosen):,} queries of {facts['classes']:,} classes in {source.name} against " + (
        f"{len(gallery.ids):,} images of collection {there.name!r}" if there else "each other"
    )
    if as_json:
        print_json(facts)
    else:
        _print(about, result, unlabelled, searched.index_type)
    if sheet is not None:  # last: where it fails, the figures are there
        _write_sheet(sheet, about, result, asked, gallery, rows, worst=worst)
        if not as_json:
            click.echo(f"wrote {sheet}")
    exit_status(broken.count)


def _model_of(there: Collection, model: str | None, version: str | None) -> tuple[str | None, str | None]:
    if model is not None:
        return model, version
    if not there.fingerprint:
        raise click.ClickException(
            f"collection {there.name!r} has vectors of the callers' own; name what makes those of the "
            "queries with --model"
        )
    if not there.model:
        raise click.ClickException(
            f"collection {there.name!r} has vectors of a model that the server hasn't loaded "
            f"(fingerprint {there.fingerprint})"
        )
    return there.model, version or there.version


@contextmanager
def _searched(
    client: Client, there: Collection | None, asked: Pictures
) -> Iterator[tuple[Collection, Pictures]]:
    """What is searched; without a collection a temporary one."""
    if there is not None:
        if there.dimension != asked.vectors.shape[1]:
            raise click.ClickException(
                f"collection {there.name!r} has vectors of {there.dimension} numbers, and the model makes "
                f"some of {asked.vectors.shape[1]}"
            )
        yield there, stored_pictures(client, there)
        return
    with temporary_collection(client, asked) as made:
        yield made, asked


def _nothing_to_find(name: str, there: Collection | None) -> str:
    if there is None:
        return f"no class in {name} has 2 different pictures; expected a folder of pictures for each class"
    return (
        f"no item of collection {there.name!r} has the `label` of a picture's folder in {name}; index "
        "a folder with a folder for each class"
    )


def _write_sheet(
    file: Path, about: str, result: Evaluation, asked: Pictures, gallery: Pictures, rows: int, *, worst: bool
) -> None:
    # Pillow and the decoder are loaded only for pictures.
    from service.cli.quality.sheet import rows_to_show, write_sheet

    numbers = rows_to_show(result, asked, rows, worst=worst)
    write_sheet(file, "Nearest pictures", about, result, asked, gallery, numbers)


def _print(about: str, result: Evaluation, unlabelled: int, index_type: str) -> None:
    click.echo(about)
    if unlabelled:
        click.echo(f"without a label, a wrong answer to every query: {count_of_images(unlabelled)}")
    exact, index = result.exact, result.index
    rows: list[tuple[Any, ...]] = [
        (f"Recall@{k}", f"{exact.recall_at[k]:.4f}", f"{index.recall_at[k]:.4f}") for k in exact.recall_at
    ]
    rows += [
        ("precision@10", f"{exact.precision_at_10:.4f}", f"{index.precision_at_10:.4f}"),
        ("mAP", f"{exact.mean_average_precision:.4f}", ""),
        ("mAP@R", f"{exact.map_at_r:.4f}", ""),
    ]
    print_table(("", "EXACT", "INDEX"), rows)
    click.echo(f"the index ({index_type}) finds {result.index_recall:.2%} of the true 10 nearest")
