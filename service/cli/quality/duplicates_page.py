"""The report of near-duplicates as pages with pictures, each of a bounded size."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain
from pathlib import Path

from service.cli.quality.near_duplicates import Found, Member
from service.cli.quality.page import figure, write_page
from service.cli.quality.thumbnails import data_uri, thumbnail

_SIDE = 160
MAX_SHOWN = 24
"""Pictures of a group that are shown."""


def write_pages(file: Path, about: str, found: Found, left_out: str, per_page: int) -> list[Path]:
    """The groups, so many on a page: FILE.html, FILE-2.html and so on, which link to each other.

    The pairs that the cosine kept out stand on the last one, under what is said of them.

    Returns:
        The pages.

    Raises:
        click.ClickException: one can't be written.
    """
    count = max(1, -(-len(found.groups) // per_page))
    files = [
        file if number == 0 else file.with_name(f"{file.stem}-{number + 1}{file.suffix}")
        for number in range(count)
    ]
    for number, page in enumerate(files):
        start = number * per_page
        sections = _sections(found.groups[start : start + per_page], start)
        if page == files[-1]:
            sections = chain(sections, _pairs(found.highest, left_out))
        write_page(page, "Near-duplicates", about, sections, _navigation(files, number))
    return files


def _sections(found: Sequence[Sequence[Member]], start: int) -> Iterator[str]:
    if not found:
        yield "<section>There are none.</section>"
    for number, group in enumerate(found, start + 1):
        figures = "".join(_figure(member, is_first=member is group[0]) for member in group[:MAX_SHOWN])
        more = f"<p>… and {len(group) - MAX_SHOWN:,} more</p>" if len(group) > MAX_SHOWN else ""
        heading = f"Group {number:,}: {len(group):,} pictures"
        yield f'<section><h2>{heading}</h2><div class="row">{figures}</div>{more}</section>'


def _pairs(highest: Sequence[Sequence[Member]], left_out: str) -> Iterator[str]:
    if highest:
        yield f"<section><h2>Not taken in</h2><p>{escape(left_out)}. The highest:</p></section>"
    for pair in highest:
        figures = "".join(_figure(member, is_first=member is pair[0]) for member in pair)
        yield f'<section><div class="row">{figures}</div></section>'


def _figure(member: Member, *, is_first: bool) -> str:
    seen = member.seen
    lines = [f"{seen.width:,} × {seen.height:,}, {seen.size_bytes:,} bytes"]
    if not is_first:
        lines.append(f"{member.bits} bits from the first, cosine {member.cosine:.4f}")
    picture = thumbnail(member.place, _SIDE)
    uri = data_uri(picture) if picture else None
    return figure(uri, _SIDE, member.id, lines, "first" if is_first else "", alt=member.id)


def _navigation(files: Sequence[Path], current: int) -> str:
    if len(files) == 1:
        return ""
    return " ".join(
        f"<b>{number + 1}</b>"
        if number == current
        else f'<a href="{escape(file.name, quote=True)}">{number + 1}</a>'
        for number, file in enumerate(files)
    )
