"""Where a stored item's picture is on this machine."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fovea import AttributeValue

from service.cli.bulk.attributes import PATH, URI


def place_of(
    attributes: Mapping[str, AttributeValue], item_id: str = "", folder: Path | None = None
) -> Path | None:
    """The file that `path` or `uri` names, or the id inside a folder; None where there is no such file.

    Args:
        attributes: the item's.
        item_id: its id, as `fovea index add FOLDER` makes it.
        folder: where the pictures are now; it goes before the attributes.
    """
    named: list[Path] = []
    if folder is not None and item_id:
        named.append(folder / item_id)
    path, uri = attributes.get(PATH), attributes.get(URI)
    if isinstance(path, str) and Path(path).is_absolute():
        named.append(Path(path))
    if isinstance(uri, str):
        if uri.startswith("file:"):
            named.append(Path(unquote(urlsplit(uri).path)))
        elif Path(uri).is_absolute():
            named.append(Path(uri))
    return next((each for each in named if _is_file(each)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a zero byte, or a name that is too long
        return False
