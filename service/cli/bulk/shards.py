"""WebDataset shards: tar archives in which files with the same key are one sample.

A sample is an image (key.jpg, key.png …) and what is known of it: key.cls or key.txt has its label; key.json
has its label, or an object whose texts, numbers and truth values are attributes. Shards are read by their
headers, so each image has one place and id; plain tar archives can be read at any place.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from fovea import AttributeType

from service.cli.bulk.attributes import LABEL, OWN, PATH, check_id
from service.cli.bulk.entry import Entry, TarMember, Unusable, content_of, text
from service.cli.image_files import SUFFIXES

SHARD_SUFFIX = ".tar"
_KINDS = ("cls", "txt", "json")
# A label or some attributes; not a caption or a mask.
_MAX_SIDE_BYTES = 64 * 1024
# What WebDataset takes for notes of its own.
_META = re.compile(r"__[^/]*__($|/)")
# The key ends at the first dot of the file's name.
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass
class _Sample:
    """The members of one key."""

    key: str
    images: list[TarMember] = field(default_factory=list)
    sides: dict[str, TarMember] = field(default_factory=dict)


class Shards:
    """An item's id is its archive's and its member's name."""

    def __init__(self, shards: tuple[Path, ...], root: Path | None = None) -> None:
        """Look at the archives' first bytes.

        Args:
            shards: the archives.
            root: what their names are relative to; default: the folder they have in common.

        Raises:
            click.ClickException: one is compressed, or can't be read.
        """
        self._shards = tuple(sorted({shard.absolute() for shard in shards}))
        self._root = (root or Path(os.path.commonpath([shard.parent for shard in self._shards]))).absolute()
        self.columns: Mapping[str, AttributeType] = {}
        self.knows_all = False  # a sample's .json may say anything
        self.name = text(str(root or (shards[0] if len(shards) == 1 else f"{len(shards)} shards")))
        self.empty = f"{self.name} has no samples with an image; looked for {' '.join(sorted(SUFFIXES))}"
        for shard in self._shards:
            _check_plain(shard)

    def count(self) -> int:
        """How many samples there are, by the archives' headers."""
        found = (found for shard in self._shards for found in self._samples(shard))
        return sum(isinstance(each, _Sample) for each in found)

    def entries(self) -> Iterator[Entry]:
        """The samples' images, and an archive that can't be read to its end in its own place."""
        for shard in self._shards:
            name = text(shard.relative_to(self._root).as_posix())
            for found in self._samples(shard):
                if isinstance(found, str):
                    yield Entry(name, shard, {}, fault=found)
                    continue
                image = found.images[0]
                item_id = f"{name}/{text(image.name)}"
                try:
                    if len(found.images) > 1:
                        raise Unusable(f"its sample has {len(found.images)} images; expected one")
                    check_id(item_id)
                    attributes = {**_attributes(found), PATH: text(f"{shard}/{image.name}")}
                    yield Entry(item_id, image, attributes)
                except Unusable as error:
                    yield Entry(item_id, image, {}, fault=str(error))

    def _samples(self, shard: Path) -> Iterator[_Sample | str]:
        """Those with an image; a text says how the archive is damaged."""
        open_sample: _Sample | None = None
        fault = ""
        try:
            for member in _members(shard):
                matched = _NAME.fullmatch(member.name)
                if matched is None:
                    continue
                key, kind = matched[1], matched[2].lower()
                if open_sample is None or open_sample.key != key:
                    if open_sample is not None and open_sample.images:
                        yield open_sample
                    open_sample = _Sample(key)
                if f".{kind.rpartition('.')[2]}" in SUFFIXES:
                    open_sample.images.append(member)
                elif kind in _KINDS:
                    open_sample.sides[kind] = member
        except (tarfile.TarError, OSError) as error:
            fault = f"is broken or cut short: {error}"
        if open_sample is not None and open_sample.images:
            yield open_sample
        if fault:
            yield fault


def _members(shard: Path) -> Iterator[TarMember]:
    with tarfile.open(shard, "r:") as archive:
        while (member := archive.next()) is not None:
            # The archive would keep every header that it passed.
            archive.members = []  # type: ignore[attr-defined]  # the types don't know it
            name = member.name.removeprefix("./")
            if not member.isreg() or member.issparse() or _META.match(name):
                continue
            if not name.rpartition("/")[2].startswith("."):
                yield TarMember(shard, name, member.offset_data, member.size)
        offset = archive.offset
    # Python takes a broken header for the end, and the samples behind it would be missed.
    with shard.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(
            "expected a header or the end's mark" if block else "the end's mark is missing"
        )


def _check_plain(shard: Path) -> None:
    try:
        with shard.open("rb") as file:
            prefix = file.read(6)
    except OSError as error:
        raise click.ClickException(f"{shard} can't be read: {error.strerror or error}") from error
    for magic, kind in _COMPRESSED.items():
        if prefix.startswith(magic):
            raise click.ClickException(
                f"{shard} is compressed ({kind}); expected a plain tar archive, whose members can be read "
                "where they stand (images are compressed already)"
            )


def _attributes(sample: _Sample) -> dict[str, object]:
    attributes: dict[str, object] = {}
    for kind in reversed(_KINDS):  # .cls has the last word on the label
        if kind in sample.sides:
            attributes |= _read(sample.sides[kind], kind)
    return attributes


def _read(member: TarMember, kind: str) -> dict[str, object]:
    if member.size_bytes > _MAX_SIDE_BYTES:
        raise Unusable(f"its .{kind} has {member.size_bytes:,} bytes; expected at most {_MAX_SIDE_BYTES:,}")
    try:
        content = content_of(member).decode("utf-8")
        value: Any = json.loads(content) if kind == "json" else content.strip()
    except (ValueError, RecursionError) as error:
        raise Unusable(f"its .{kind} isn't {'JSON' if kind == 'json' else 'UTF-8'}: {error}") from error
    if not isinstance(value, dict):
        return {LABEL: _label(value)}
    own = [name for name in value if name in OWN]
    if own:
        raise Unusable(f"its .json has {own[0]}; that attribute is written by `fovea index add` itself")
    found: dict[str, object] = {
        name: cell for name, cell in value.items() if name and isinstance(cell, str | int | float)
    }
    found |= {name: _label(value[name]) for name in (LABEL, "labels") if isinstance(value.get(name), list)}
    return found


def _label(value: object) -> str:
    return ";".join(map(str, value)) if isinstance(value, list) else str(value)
