"""What the client commands print: aligned columns for people, JSON lines for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
from fovea import Collection


def print_json(value: Any) -> None:
    """One value on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def count_of_images(number: int) -> str:
    """For instance 1,024 images."""
    return f"{number:,} image" + ("" if number == 1 else "s")


def origin(collection: Collection) -> str:
    """What makes a collection's vectors."""
    if collection.model:
        return f"{collection.model} version {collection.version}"
    return "a model that isn't loaded" if collection.fingerprint else "the callers' own"


def named_types(attributes: Mapping[str, str]) -> str:
    """For instance label string, year int."""
    return ", ".join(f"{name} {kind}" for name, kind in sorted(attributes.items()))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest value, numbers to the right; never wrapped or cut."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(cell, int | float) for cell in column)
        for column in zip(*rows, strict=True)
    ]
    numeric = numeric or [False] * len(header)
    click.secho(_line(header, widths, numeric), bold=True)
    for row in cells:
        click.echo(_line(row, widths, numeric))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return "  ".join(aligned).rstrip()
