"""What the client commands print: aligned columns for people, JSON lines for programs."""

import json
from collections.abc import Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    """One value on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


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
