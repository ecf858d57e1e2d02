"""Act two: photographs, named and compared by a network that knows a thousand kinds of things."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import fovea
from rich.markup import escape

from demo.photo_sheet import Look, Shown, draw_photo_sheet
from demo.story import console, good, say
from training.image_files import find_images

MODEL = "efficientnet-lite0"
# More of a folder would make the demo long; `fovea index add` takes any number.
MOST = 200
_TOP_K = 3
_NEIGHBORS = 4
_COLLECTION = "photos"
_ROWS = 20


class NoPhotos(Exception):
    """The folder that the user named has none that can be shown."""


@dataclass(frozen=True)
class Seen:
    """A photograph and what the service says of it.

    Attributes:
        path: of the file.
        found: its classes.
        neighbors: the others that look most alike, nearest first, each with its place in the list.
    """

    path: Path
    found: fovea.Classification
    neighbors: list[tuple[int, float]]


def photographs(folder: Path | None) -> list[Path]:
    """The image files under a folder, sorted, `MOST` at most; without one scikit-learn's two photographs.

    Raises:
        NoPhotos: there is no such folder, or it has no images.
    """
    if folder is None:
        bundled = resources.files("sklearn.datasets.images")
        return [Path(str(bundled / name)) for name in ("china.jpg", "flower.jpg")]
    if not folder.is_dir():
        raise NoPhotos(f"PHOTOS is {str(folder)!r}; expected a folder of images")
    found = find_images(folder).paths
    if not found:
        raise NoPhotos(f"PHOTOS is {str(folder)!r}, which has no image files")
    return found[:MOST]


def look_at(client: fovea.Client, paths: Sequence[Path]) -> list[Seen]:
    """Name, embed and compare the photographs; a file that is broken is said and left out.

    Raises:
        NoPhotos: all are broken.
    """
    say(f"8  Name what is on {len(paths)} photograph{'s' * (len(paths) != 1)}")
    kept: list[tuple[Path, fovea.Classification]] = []
    for path, found in zip(paths, client.classify_stream(paths, model=MODEL, top_k=_TOP_K), strict=True):
        if isinstance(found, fovea.FoveaError):
            console.print(f"   [yellow]{escape(path.name)}: {escape(found.message)}[/]", soft_wrap=True)
            continue
        named = ", ".join(f"{score.label} {score.probability:.0%}" for score in found.classes)
        console.print(f"   {escape(path.name)}: {escape(named)}", soft_wrap=True)
        kept.append((path, found))
    if not kept:
        raise NoPhotos(f"none of the {len(paths)} files can be shown")
    say("9  Embed them: which look alike?")
    client.create_collection(_COLLECTION, model=MODEL)
    items = [fovea.Item(str(number), image=path) for number, (path, _) in enumerate(kept)]
    for result in client.upsert(_COLLECTION, items):
        if result.error is not None:
            raise result.error
    # A stored item as the query is left out of its own neighbours.
    queries = [fovea.Query(id=item.id) for item in items]
    seen = []
    for (path, found), near in zip(
        kept, client.search_batch(_COLLECTION, queries, top_k=_NEIGHBORS), strict=True
    ):
        seen.append(Seen(path, found, [(int(each.id), each.score) for each in good(near)]))
    for each in seen[:_ROWS]:
        if each.neighbors:
            number, score = each.neighbors[0]
            line = (
                f"{each.path.name}: of the others {seen[number].path.name} is most alike, cosine {score:.2f}"
            )
            console.print(f"   {escape(line)}", soft_wrap=True)
    return seen


def draw(seen: Sequence[Seen], path: Path) -> None:
    """The first of them with their names and neighbours."""
    rows = [
        Shown(
            each.path,
            [(score.label, score.probability) for score in each.found.classes],
            [Look(seen[number].path, score) for number, score in each.neighbors],
        )
        for each in seen[:_ROWS]
    ]
    subtitle = (
        f"EfficientNet-lite0, ImageNet weights   ·   {len(rows)} of {len(seen)}   ·   left: a photograph and "
        "what the service sees on it; right: the others that look most alike, by cosine"
    )
    draw_photo_sheet(rows, "Fovea on photographs", subtitle, path)
