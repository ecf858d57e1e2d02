"""`fovea index duplicates`: which pictures are copies of each other, or nearly."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from fovea import Collection

from service.cli.bulk.broken import BrokenList
from service.cli.bulk.folder import Folder
from service.cli.connection import connected, exit_status, json_option, model_options, server_options
from service.cli.output import count_of_images, print_json
from service.cli.output_paths import replaceable

if TYPE_CHECKING:  # Pillow is loaded only when pictures are read
    from service.cli.quality.near_duplicates import Found, Member

_MOST_PRINTED = 50


@click.command("duplicates")
@click.argument(
    "folder",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="[FOLDER]",
)
@click.option("--collection", metavar="NAME", help="Collection of images. Default, without FOLDER: default.")
@model_options("Makes the vectors of FOLDER. Default: the server's default model.")
@click.option(
    "--max-bits",
    type=click.IntRange(0, 24),
    default=10,
    show_default=True,
    help="In how many of 64 bits the perceptual hashes of two pictures may differ.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    metavar="COSINE",
    help="The least cosine of their vectors. Default: measured, on altered copies of some of the pictures.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=replaceable("no .html file", ".html", ".htm"),
    metavar="FILE.html",
    help="Write the report as a page with pictures.",
)
@click.option(
    "--per-page",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Groups on a page; further ones go to FILE-2.html and so on.",
)
@json_option
@server_options
def duplicates_command(
    folder: Path | None,
    collection: str | None,
    model: str | None,
    version: str | None,
    max_bits: int,
    threshold: float | None,
    page: Path | None,
    per_page: int,
    as_json: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Report near-duplicates: by perceptual hash, then by cosine.

    Among the images of a collection, whose `path` or `uri` is a file on this machine; or among the pictures
    of FOLDER, of which only those with near hashes are embedded. With both, the collection's images are
    looked for in FOLDER by their ids, and those that aren't there where `path` or `uri` says. Pairs that pass
    both tests are joined to groups; the first picture of a group has the most pixels, then the most bytes.
    Resized, compressed and brighter copies are found, mirrored and strongly cropped ones aren't. How many
    pairs have nearly equal hashes but a lower cosine is said too: a lower --threshold takes them in. Nothing
    is deleted.
    """
    # The decoder and Pillow are loaded only here.
    from service.cli.quality.calibration import ALTERED, calibrate
    from service.cli.quality.candidates import (
        Place,
        embedded_vectors,
        hash_all,
        stored_places,
        stored_vectors,
    )
    from service.cli.quality.duplicates_page import write_pages
    from service.cli.quality.near_duplicates import Found, candidates, groups

    with connected(address, timeout_s) as client, BrokenList(None) as broken:
        there: Collection | None = None
        places: Iterable[Place]
        if folder is not None and collection is None:
            source = Folder(folder)
            places = (Place(entry.id, entry.place) for entry in source.entries())
            name, total = source.name, source.count()
            if not total:
                raise click.ClickException(source.empty)
        else:
            if model is not None or version is not None:
                raise click.UsageError("--model and --version are for a folder; a collection has its vectors")
            there = client.collection(collection or "default")
            name, total = f"collection {there.name!r}", there.count
            places = stored_places(client, there, folder)
            model, version = there.model or None, there.version or None
        pictures = hash_all(places, total, broken)
        total = len(pictures.ids) + broken.count  # a collection may have grown meanwhile
        near = candidates(pictures, max_bits)
        how = "given"
        if threshold is None and near:
            _check_model(there, model)
            measured = calibrate(client, pictures, model, version)
            threshold = measured.threshold
            how = (
                f"{measured.copies_share:.1%} of {measured.copies:,} {ALTERED} reach it, and "
                f"{measured.unlike_share:.2%} of pairs of different pictures"
            )
        ids = [pictures.ids[number] for number in near]
        if there is not None:
            vectors = stored_vectors(client, there, ids)
        else:
            asked = [Place(pictures.ids[number], pictures.places[number]) for number in near]
            vectors = embedded_vectors(client, asked, model, version, broken)
        found = groups(pictures, vectors, max_bits, threshold) if threshold is not None else Found([], 0, [])
    broken.show(total, "files can't be compared")
    compared = f"{total - broken.count:,} of " if broken.count else ""
    about = f"{_counted(found.groups)} in {compared}{count_of_images(total)} of {name}"
    if threshold is not None:
        about += (
            f"; pairs differ in at most {max_bits} bits, with a cosine of at least {threshold:.4f} ({how})"
        )
    if any(len(group) > 2 for group in found.groups):
        about += "; pairs make chains, so some of a group may differ more"
    if as_json:
        for group in found.groups:
            print_json({"members": [_fields(member) for member in group]})
        if found.left_out:
            click.echo(_left_out(found), err=True)
    else:
        _print(about, found)
    if page is not None:  # last: where it fails, the report is there
        pages = write_pages(page, about, found, _left_out(found), per_page)
        for each in pages if not as_json else ():
            click.echo(f"wrote {each}")
    exit_status(broken.count)


def _counted(groups: Sequence[Sequence["Member"]]) -> str:
    if not groups:
        return "no near-duplicates"
    copies = sum(len(group) - 1 for group in groups)
    return f"{len(groups):,} group{'s' * (len(groups) > 1)} with {copies:,} more than one of each,"


def _left_out(found: "Found") -> str:
    """What the cosine kept out though the hash didn't; empty where there is nothing."""
    from service.cli.quality.near_duplicates import NEARLY_EQUAL_BITS

    if not found.left_out:
        return ""
    pairs = "1 further pair has" if found.left_out == 1 else f"{found.left_out:,} further pairs have"
    highest = max(pair[1].cosine for pair in found.highest)
    return (
        f"{pairs} nearly equal hashes (at most {NEARLY_EQUAL_BITS} bits differ) but a lower cosine, up to "
        f"{highest:.4f}; a lower --threshold takes them in"
    )


def _check_model(there: Collection | None, model: str | None) -> None:
    if there is not None and model is None:
        raise click.ClickException(
            f"the model that made the vectors of collection {there.name!r} isn't loaded, so the threshold "
            "can't be measured; give it with --threshold, for instance 0.95"
        )


def _fields(member: "Member") -> dict[str, object]:
    return {
        "id": member.id,
        "path": str(member.place),
        "width": member.seen.width,
        "height": member.seen.height,
        "size_bytes": member.seen.size_bytes,
        "hash": f"{member.seen.bits:016x}",
        "bits": member.bits,
        "cosine": member.cosine,
    }


def _print(about: str, found: "Found") -> None:
    click.echo(about)
    _print_groups(found.groups[:_MOST_PRINTED])
    if len(found.groups) > _MOST_PRINTED:
        click.echo(f"… and {len(found.groups) - _MOST_PRINTED:,} more groups; see --page and --json")
    if found.left_out:
        more = "" if found.left_out == len(found.highest) else "; the highest of them"
        click.echo(_left_out(found) + more + ":")
        _print_groups(found.highest)


def _print_groups(groups: Sequence[Sequence["Member"]]) -> None:
    for group in groups:
        first, *others = group
        click.echo(f"{first.id}  {first.seen.width}×{first.seen.height}")
        for member in others:
            size = f"{member.seen.width}×{member.seen.height}"
            click.echo(f"  {member.id}  {size}, {member.bits} bits, cosine {member.cosine:.4f}")
