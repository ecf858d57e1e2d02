"""The same small pictures as a table and as WebDataset shards."""

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.training.pictures import write_class_folders

Cells = Sequence[str]


def image_rows(root: Path, count: int, seed: int = 0) -> list[list[str]]:
    """`count` pictures of each class under root/images, as rows of path relative to root, and class."""
    images = write_class_folders(root / "images", count, seed)
    paths = sorted(path for path in images.rglob("*.*"))
    return [[path.relative_to(root).as_posix(), path.parent.name] for path in paths]


def write_csv(file: Path, header: Cells, rows: Iterable[Cells]) -> Path:
    """A table as spreadsheets write it."""
    with file.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([header, *rows])
    return file


def write_tar(file: Path, members: Mapping[str, bytes]) -> Path:
    """An archive with these members in this order."""
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def write_shards(
    root: Path, rows: Sequence[Cells], names: Sequence[str], label: str = "cls", first: int = 0
) -> Path:
    """The rows' pictures dealt to archives of these names in root/shards; labels as .cls, .txt or .json."""
    shards = root / "shards"
    shards.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        members: dict[str, bytes] = {}
        for index in range(number, len(rows), len(names)):
            path, said = rows[index][0], rows[index][1]
            key = f"{first + index:05}"
            members[f"{key}{Path(path).suffix}"] = (root / path).read_bytes()
            text = json.dumps({"label": said, "from": path}) if label == "json" else f"{said}\n"
            members[f"{key}.{label}"] = text.encode()
        write_tar(shards / name, members)
    return shards
