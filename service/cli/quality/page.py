"""What pages have in common: one HTML file without scripts, which needs no other file."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from service.cli.output_paths import replaced

_STYLE = """
:root { --ink: #1f2933; --muted: #616e7c; --line: #e4e7eb; --good: #1a7f37; --bad: #b42318; --blue: #1f6feb; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
main { max-width: 1440px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { margin: 0 0 4px; font-size: 22px; overflow-wrap: anywhere; } h2 { margin: 0 0 10px; font-size: 15px; }
header p { margin: 0; color: var(--muted); overflow-wrap: anywhere; }
nav { margin: 14px 0; display: flex; flex-wrap: wrap; gap: 4px 12px; }
a { color: var(--blue); text-decoration: none; } nav b { padding: 0 2px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; }
section { padding: 14px 16px; margin: 12px 0; }
.row { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start; }
@media (min-width: 900px) { .one-line { flex-wrap: nowrap; } }
.one-line figure { min-width: 0; } .one-line .frame { max-width: 100%; }
.one-line img { max-width: 100%; height: auto; }
figure { margin: 0; font-size: 12px; line-height: 1.35; }
.frame { display: flex; align-items: center; justify-content: center; color: var(--muted); }
.frame { background: #f5f7fa; border: 3px solid transparent; border-radius: 4px; }
.frame img { display: block; }
.good .frame { border-color: var(--good); } .bad .frame { border-color: var(--bad); }
.first .frame { border-color: var(--blue); }
figcaption { margin-top: 4px; overflow-wrap: anywhere; }
figcaption span { display: block; color: var(--muted); }
.good b { color: var(--good); } .bad b { color: var(--bad); }
"""


def figure(
    uri: str | None, side: int, title: str, lines: Iterable[str], kind: str = "", alt: str = ""
) -> str:
    """A picture with what stands below it.

    Args:
        uri: None: it can't be shown.
        side: pixels that it has at most.
        title: the first line, bold.
        lines: the others.
        kind: "good" or "bad" for a green or red frame, "first" for a blue one.
        alt: what is read aloud in the picture's place.
    """
    picture = f'<img src="{uri}" alt="{escape(alt)}">' if uri else "no picture here"
    below = "".join(f"<span>{escape(line)}</span>" for line in lines)
    size = f"width: {side + 6}px"
    return (
        f'<figure class="{kind}" style="{size}"><div class="frame" style="{size}; height: {side + 6}px">'
        f"{picture}</div><figcaption><b>{escape(title)}</b>{below}</figcaption></figure>"
    )


def write_page(file: Path, title: str, about: str, parts: Iterable[str], navigation: str = "") -> None:
    """Write a page, a part at a time; it is there whole or not at all.

    Args:
        file: replaced where it is there.
        title: of the page.
        about: a line below it.
        parts: HTML.
        navigation: HTML, above and below them.

    Raises:
        click.ClickException: it can't be written.
    """
    nav = f"<nav>{navigation}</nav>\n" if navigation else ""
    with replaced(file) as partial, partial.open("w", encoding="utf-8") as page:
        page.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p></header>\n{nav}"
        )
        for part in parts:
            page.write(part + "\n")
        page.write(f"{nav}</main>\n</body>\n</html>\n")
