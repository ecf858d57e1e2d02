"""The picture at the end: each query, what the service says it is, and its nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_TILE, _GAP, _MARGIN, _HEAD = 88, 14, 36, 118
_TEXT_WIDTH = 190
_PAPER, _INK, _FAINT = "#fbfaf7", "#22252a", "#8a8f98"
_RIGHT, _WRONG = "#2e9e6b", "#d64545"


@dataclass(frozen=True)
class Match:
    """A neighbour.

    Attributes:
        image: uint8 [height, width, 3].
        label: its true class.
        score: similarity to the query.
    """

    image: NDArray[np.uint8]
    label: str
    score: float


@dataclass(frozen=True)
class Row:
    """One query.

    Attributes:
        image: uint8 [height, width, 3].
        truth, prediction: its true class and the service's.
        probability: the service's, of the prediction.
        matches: its neighbours, nearest first; each row has as many.
    """

    image: NDArray[np.uint8]
    truth: str
    prediction: str
    probability: float
    matches: Sequence[Match]


def draw_contact_sheet(rows: Sequence[Row], title: str, subtitle: str, path: Path) -> None:
    """Write a PNG with two columns of rows; frames are green where the class is right, red where not."""
    in_row = len(rows[0].matches)
    row_width = _TILE + _TEXT_WIDTH + in_row * (_TILE + _GAP)
    lines = (len(rows) + 1) // 2
    width = 2 * row_width + 3 * _MARGIN
    height = _HEAD + lines * (_TILE + 22 + _GAP) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 26), title, _INK, ImageFont.load_default(30))
    draw.text((_MARGIN, 70), subtitle, _FAINT, ImageFont.load_default(17))
    for number, row in enumerate(rows):
        column, line = divmod(number, lines)
        left = _MARGIN + column * (row_width + _MARGIN)
        top = _HEAD + line * (_TILE + 22 + _GAP)
        _draw_row(sheet, draw, row, left, top)
    sheet.save(path)


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: Row, left: int, top: int) -> None:
    correct = row.prediction == row.truth
    _draw_tile(sheet, draw, row.image, left, top, _RIGHT if correct else _WRONG)
    x = left + _TILE + 18
    draw.text((x, top - 6), row.prediction, _RIGHT if correct else _WRONG, ImageFont.load_default(52))
    draw.text((x + 46, top + 16), f"{row.probability:.1%}", _INK, ImageFont.load_default(18))
    bar = _TEXT_WIDTH - 60
    draw.rounded_rectangle((x, top + 62, x + bar, top + 68), 3, "#e6e4de")
    filled = max(6, round(bar * row.probability))
    draw.rounded_rectangle((x, top + 62, x + filled, top + 68), 3, _RIGHT if correct else _WRONG)
    note = "as labelled" if correct else f"labelled {row.truth}"
    draw.text((x, top + 76), note, _FAINT, ImageFont.load_default(14))
    for number, match in enumerate(row.matches):
        x = left + _TILE + _TEXT_WIDTH + number * (_TILE + _GAP)
        _draw_tile(sheet, draw, match.image, x, top, _RIGHT if match.label == row.truth else _WRONG)
        caption = f"{match.label}  ·  {match.score:.3f}"
        draw.text((x + _TILE / 2, top + _TILE + 4), caption, _FAINT, ImageFont.load_default(14), anchor="ma")


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, image: NDArray[np.uint8], left: int, top: int, color: str
) -> None:
    inner = _TILE - 8
    # A picture of a few pixels is clearer as squares than as a blur.
    resampling = Image.Resampling.NEAREST if max(image.shape[:2]) < inner else Image.Resampling.LANCZOS
    sheet.paste(Image.fromarray(image).resize((inner, inner), resampling), (left + 4, top + 4))
    draw.rounded_rectangle((left, top, left + _TILE - 1, top + _TILE - 1), 6, outline=color, width=3)
