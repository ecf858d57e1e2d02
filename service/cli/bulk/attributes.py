"""The attributes of what `fovea index add` writes: its own ones, and those of a source, typed as declared."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from fovea import AttributeType, AttributeValue

from service.cli.bulk.entry import Entry, Stamp, Unusable, text
from service.errors import shorten
from service.retrieval.schema import INT64_MAX, INT64_MIN, MAX_ATTRIBUTES, is_text

PATH, URI, LABEL, SHA256 = "path", "uri", "label", "sha256"
SIZE, MODIFIED = "size_bytes", "modified_ns"
# What add writes by itself, and no column may say otherwise.
OWN: Final[Mapping[str, AttributeType]] = {SHA256: "string", SIZE: "int", MODIFIED: "int"}
# Of a new collection: filters go by them, re-embedding by `uri`, and add finds equal images by `sha256`.
DECLARED: Final[Mapping[str, AttributeType]] = {
    PATH: "string",
    URI: "string",
    LABEL: "string",
    SHA256: "string",
}
MAX_DECLARED = MAX_ATTRIBUTES
_MAX_ID_BYTES = 512
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


def check_id(name: str) -> None:
    """Raises:
    Unusable: no item can have this id.
    """
    if not 1 <= len(name.encode()) <= _MAX_ID_BYTES or "\0" in name:
        raise Unusable(
            f"its id has {len(name.encode()):,} bytes; expected 1 to {_MAX_ID_BYTES} of UTF-8 without zero "
            "bytes"
        )


def of_file(path: Path) -> dict[str, object]:
    """`path` and `uri` of an image that is a file of its own."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - without "..", but with the links as they are
    return {PATH: text(str(absolute)), URI: absolute.as_uri()}


def wanted(entry: Entry, schema: Mapping[str, str]) -> dict[str, AttributeValue]:
    """What a source says of an image, as the collection stores it.

    Args:
        entry: the image.
        schema: the collection's: name → type.

    Raises:
        Unusable: a value doesn't fit its declared type.
    """
    return {
        name: _typed(name, value, schema.get(name, ""))
        for name, value in entry.attributes.items()
        if name and is_text(name) and not _is_empty(value)
    }


def with_own(
    attributes: Mapping[str, AttributeValue], sha256: str, stamp: Stamp
) -> dict[str, AttributeValue]:
    """The same with add's own."""
    return {**attributes, SHA256: sha256, SIZE: stamp.size_bytes, MODIFIED: stamp.modified_ns}


def is_unchanged(
    stored: Mapping[str, AttributeValue], attributes: Mapping[str, AttributeValue], stamp: Stamp
) -> bool:
    """Whether an image is stored as it is now, by the size and time of its file; it may have more attributes.

    Args:
        stored: the item's attributes.
        attributes: what the source says.
        stamp: of the file.
    """
    return isinstance(stored.get(SHA256), str) and contains(
        stored, {**attributes, SIZE: stamp.size_bytes, MODIFIED: stamp.modified_ns}
    )


def contains(stored: Mapping[str, AttributeValue], attributes: Mapping[str, AttributeValue]) -> bool:
    """Whether all of the attributes are stored with these values and types."""
    return all(
        name in stored and stored[name] == value and type(stored[name]) is type(value)
        for name, value in attributes.items()
    )


def number_type(cells: Iterable[object]) -> AttributeType | None:
    """Int or float where all texts are such numbers, without zeros in front as codes have; else None."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell != ""]
    if not texts or any(each.lstrip("+-")[:1] == "0" and each.lstrip("+-")[1:2].isdigit() for each in texts):
        return None
    if all(_int(each) is not None for each in texts):
        return "int"
    return "float" if all(_float(each) is not None for each in texts) else None


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _typed(name: str, value: object, declared: str) -> AttributeValue:
    """A cell as the declared type; undeclared: as its own."""
    kind = declared or _KINDS.get(type(value), "string")
    found: AttributeValue | None = None
    if isinstance(value, str | bool | int | float):
        found = _READERS[kind](value)
    if found is None:
        raise Unusable(f"its {name} is {shorten(value)}; expected {_EXPECTED[kind]}")
    return found


def _text(value: str | float) -> str | None:
    # Every engine stores it: a lone surrogate has no UTF-8, and PostgreSQL's text no zero byte.
    if isinstance(value, str):
        return value if is_text(value) and "\0" not in value else None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bool(value: str | float) -> bool | None:
    return _TRUTHS.get(str(value).strip().lower())


def _int(value: str | float) -> int | None:
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    fits = not isinstance(value, bool) and (isinstance(value, str) or number == value)
    return number if fits and INT64_MIN <= number <= INT64_MAX else None


def _float(value: str | float) -> float | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


_KINDS: Mapping[type, str] = {str: "string", bool: "bool", int: "int", float: "float"}
_READERS: Mapping[str, Callable[[str | float], AttributeValue | None]] = {
    "string": _text,
    "bool": _bool,
    "int": _int,
    "float": _float,
}
_EXPECTED: Mapping[str, str] = {
    "string": "a text without zero bytes",
    "bool": "true or false",
    "int": "an int of 64 bits",
    "float": "a finite float",
}
