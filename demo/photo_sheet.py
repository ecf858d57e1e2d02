"""The picture of the photographs: each with its most probable names, and the others that look alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

_TILE, _GAP, _MARGIN, _HEAD, _LINE = 176, 18, 36, 118, 212
_TEXT_WIDTH = 330
_SMALL = 132
_PAPER, _INK, _FAINT, _BAR, _TRACK = "#fbfaf7", "#22252a", "#8a8f98", "#2f6f9f", "#e6e4de"


@dataclass(frozen=True)
class Look:
    """A neighbour: its file, and its cosine with the query."""

    path: Path
    score: float


@dataclass(frozen=True)
class Shown:
    """One photograph: its file, its names with their probabilities, its neighbours, nearest first."""

    path: Path
    names: Sequence[tuple[str, float]]
    neighbors: Sequence[Look]


def draw_photo_sheet(rows: Sequence[Shown], title: str, subtitle: str, path: Path) -> None:
    """Write a PNG with a line for each photograph."""
    most = max(len(row.neighbors) for row in rows)
    width = 2 * _MARGIN + _TILE + _GAP + _TEXT_WIDTH + most * (_SMALL + _GAP)
    width = max(width, 2 * _MARGIN + round(ImageFont.load_default(17).getlength(subtitle)))
    sheet = Image.new("RGB", (width, _HEAD + len(rows) * _LINE + _MARGIN // 2), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 26), title, _INK, ImageFont.load_default(30))
    draw.text((_MARGIN, 70), subtitle, _FAINT, ImageFont.load_default(17))
    for number, row in enumerate(rows):
        _draw_row(sheet, draw, row, _HEAD + number * _LINE)
    sheet.save(path)


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: Shown, top: int) -> None:
    _paste(sheet, row.path, _MARGIN, top, _TILE)
    left = _MARGIN + _TILE + _GAP
    draw.text((left, top), _fitting(row.path.name, 15, _TEXT_WIDTH - 2 * _GAP), _FAINT, _font(15))
    for number, (name, probability) in enumerate(row.names):
        y = top + 30 + number * 46
        draw.text((left, y), _fitting(name, 18, _TEXT_WIDTH - 110), _INK, _font(18))
        draw.text((left + _TEXT_WIDTH - 2 * _GAP, y), f"{probability:.1%}", _INK, _font(18), anchor="ra")
        bar = _TEXT_WIDTH - 2 * _GAP
        draw.rounded_rectangle((left, y + 27, left + bar, y + 33), 3, _TRACK)
        draw.rounded_rectangle((left, y + 27, left + max(6, round(bar * probability)), y + 33), 3, _BAR)
    for number, look in enumerate(row.neighbors):
        x = left + _TEXT_WIDTH + number * (_SMALL + _GAP)
        _paste(sheet, look.path, x, top, _SMALL)
        caption = _fitting(look.path.name, 13, _SMALL)
        draw.text((x + _SMALL / 2, top + _SMALL + 6), caption, _FAINT, _font(13), anchor="ma")
        draw.text((x + _SMALL / 2, top + _SMALL + 24), f"{look.score:.3f}", _INK, _font(14), anchor="ma")


def _paste(sheet: Image.Image, path: Path, left: int, top: int, side: int) -> None:
    with Image.open(path) as photo:
        photo.draft("RGB", (side * 2, side * 2))
        tile = ImageOps.fit(ImageOps.exif_transpose(photo).convert("RGB"), (side, side))
    sheet.paste(tile, (left, top))


def _fitting(text: str, size: int, width: int) -> str:
    """As much of a text as fits."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
