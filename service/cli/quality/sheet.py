"""A contact sheet: queries and their nearest, right ones in green frames, wrong ones in red."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from service.cli.output_paths import replaced
from service.cli.quality.evaluation import Answer, Evaluation
from service.cli.quality.labelled import Pictures
from service.cli.quality.page import figure, write_page
from service.cli.quality.thumbnails import data_uri, thumbnail

_SIDE, _FRAME, _GAP, _TEXT = 104, 4, 8, 30
_GOOD, _BAD, _QUERY, _INK, _EMPTY = "#1a7f37", "#b42318", "#1f6feb", "#1f2933", "#e4e7eb"
_MOST_CHARACTERS = 17


def rows_to_show(evaluation: Evaluation, asked: Pictures, most: int, *, worst: bool) -> list[int]:
    """Which queries: of each class in turn; or those with the fewest right answers first.

    Returns:
        Numbers of queries in the evaluation.
    """
    numbers = range(len(evaluation.rows))
    if worst:
        order = sorted(numbers, key=lambda number: sum(each.is_right for each in evaluation.answers[number]))
        return order[:most]
    seen: dict[str, int] = {}
    turns = []
    for number in numbers:
        label = asked.labels[evaluation.rows[number]]
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], label, number))
    return [number for _, _, number in sorted(turns)[:most]]


def write_sheet(
    file: Path, title: str, about: str, evaluation: Evaluation, asked: Pictures, gallery: Pictures,
    numbers: Sequence[int],
) -> None:  # fmt: skip
    """As a picture (.png) or a page (.html), by the file's name.

    Raises:
        click.ClickException: it can't be written.
    """
    if file.suffix.lower() == ".png":
        sheet = _picture(f"{title}: {about}", evaluation, asked, gallery, numbers)
        with replaced(file) as partial:
            sheet.save(partial, "PNG", optimize=True)
    else:
        write_page(file, title, about, _sections(evaluation, asked, gallery, numbers))


def _sections(
    evaluation: Evaluation, asked: Pictures, gallery: Pictures, numbers: Sequence[int]
) -> Iterator[str]:
    for number in numbers:
        row, answers = evaluation.rows[number], evaluation.answers[number]
        figures = [_figure(asked, row, "first", ())]
        for answer in answers:
            kind = "good" if answer.is_right else "bad"
            figures.append(_figure(gallery, answer.row, kind, (f"score {answer.score:.4f}",)))
        right = sum(answer.is_right for answer in answers)
        heading = escape(f"{asked.labels[row]}: {right} of {len(answers)} right")
        yield f'<section><h2>{heading}</h2><div class="row one-line">{"".join(figures)}</div></section>'


def _figure(pictures: Pictures, row: int, kind: str, lines: Sequence[str]) -> str:
    picture = thumbnail(pictures.places[row], _SIDE)
    uri = data_uri(picture) if picture else None
    label = pictures.labels[row] or "no label"
    return figure(uri, _SIDE, label, (*lines, pictures.ids[row]), kind, alt=label)


def _picture(
    title: str, evaluation: Evaluation, asked: Pictures, gallery: Pictures, numbers: Sequence[int]
) -> Image.Image:
    columns = 1 + max(len(evaluation.answers[number]) for number in numbers)
    across, down = _SIDE + 2 * _FRAME + _GAP, _SIDE + 2 * _FRAME + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * across + 3 * _GAP, len(numbers) * down + 40), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    draw.text((_GAP, 12), title, fill=_INK, font=ImageFont.load_default(15))
    for line, number in enumerate(numbers):
        top = 40 + line * down
        row = evaluation.rows[number]
        _tile(sheet, (_GAP, top), asked, row, _QUERY)
        draw.text((_GAP, top + _SIDE + 2 * _FRAME + 2), _short(asked.labels[row]), fill=_INK, font=font)
        for column, answer in enumerate(evaluation.answers[number], 1):
            left = 2 * _GAP + column * across
            _tile(sheet, (left, top), gallery, answer.row, _GOOD if answer.is_right else _BAD)
            text = f"{_short(gallery.labels[answer.row] or 'no label')}\n{_score(answer)}"
            draw.text((left, top + _SIDE + 2 * _FRAME + 2), text, fill=_INK, font=font, spacing=1)
    return sheet


def _tile(sheet: Image.Image, at: tuple[int, int], pictures: Pictures, row: int, frame: str) -> None:
    left, top = at
    outer = _SIDE + 2 * _FRAME
    ImageDraw.Draw(sheet).rectangle(
        (left, top, left + outer - 1, top + outer - 1), fill=_EMPTY, outline=frame, width=_FRAME
    )
    picture = thumbnail(pictures.places[row], _SIDE)
    if picture is not None:
        sheet.paste(picture, (left + (outer - picture.width) // 2, top + (outer - picture.height) // 2))


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


def _score(answer: Answer) -> str:
    return f"{answer.score:.4f}"
