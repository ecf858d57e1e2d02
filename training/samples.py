"""The samples of tar shards by WebDataset's conventions: which members belong together, what they say."""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import InvalidImage
from training.errors import DataError, SettingError
from training.image_files import SUFFIXES
from training.source import TarMember, source_bytes

# A class, or a list of some; not a caption or a mask.
_MAX_LABEL_BYTES = 1 << 20
_LABEL_KINDS = ("cls", "json", "txt")
# What WebDataset takes for notes of its own.
_META = re.compile(r"__[^/]*__($|/)")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Sample:
    """Members of a shard with the same key, an image among them.

    Attributes:
        shard: the archive.
        key: what their names begin with, folders included.
        name: of the image: the archive and the member.
        source: the image.
        labels: each once; None where none is given.
        several: whether there may be any number of them.
    """

    shard: Path
    key: str
    name: str
    source: TarMember
    labels: tuple[str, ...] | None
    several: bool


@dataclass
class Samples:
    """What shards hold.

    Attributes:
        samples: in the shards' order.
        passed_over: how many members are neither, by kind.
        damaged: names and faults of archives that can't be read to their end.
    """

    samples: list[Sample] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    damaged: list[tuple[str, str]] = field(default_factory=list)


def read_samples(shards: Sequence[Path], root: Path) -> Samples:
    """Read every header, and every label; no image.

    Raises:
        DataError: an archive is compressed, a sample has two images, or a label can't be used.
    """
    try:
        # Needed by shards only, and slow to import.
        from webdataset.tariterators import base_plus_ext, group_by_keys
    except ModuleNotFoundError as error:
        raise SettingError(
            f"{shards[0]}: reading shards needs webdataset, which isn't installed: pip install "
            "'fovea-serving[train]'"
        ) from error
    read = Samples()
    for shard in shards:
        name = shard.relative_to(root).as_posix()
        members = (
            {"fname": member.name, "data": member, "__url__": str(shard)}
            for member in _members(shard, name, read)
        )
        try:
            for group in group_by_keys(members, keys=base_plus_ext):
                sample = _sample(shard, name, group, read)
                if sample is not None:
                    read.samples.append(sample)
        except ValueError as error:
            raise DataError(f"{name}: {error.args[0]}") from error
        cut = bool(read.damaged) and read.damaged[-1][0] == name
        if cut and read.samples and read.samples[-1].shard == shard and read.samples[-1].labels is None:
            # Its label lay behind the cut.
            read.samples.pop()
    return read


def _members(shard: Path, name: str, read: Samples) -> Iterator[TarMember]:
    """The regular files of an archive; what else there is, and damage, is noted in `read`."""
    if not shard.is_file():
        read.damaged.append((name, "not a regular file"))
        return
    with shard.open("rb") as file:
        prefix = file.read(6)
    for magic, kind in _COMPRESSED.items():
        if prefix.startswith(magic):
            raise DataError(
                f"{shard} is compressed ({kind}); expected a plain tar archive, whose members can be read "
                "where they stand (images are compressed already)"
            )
    count = 0
    try:
        with tarfile.open(shard, "r:") as archive:
            while (member := archive.next()) is not None:
                # The archive would keep every header that it passed.
                archive.members = []  # type: ignore[attr-defined]  # the types don't know it
                count += 1
                path = member.name.removeprefix("./")
                if member.isdir() or _META.match(path) or path.rpartition("/")[2].startswith("."):
                    continue
                if not member.isreg() or member.issparse():
                    read.passed_over["link or special file"] += 1
                    continue
                yield TarMember(shard, path, member.offset_data, member.size)
            _check_end(shard, archive.offset)
    except tarfile.TarError as error:
        read.damaged.append((name, f"broken or cut short after {count:,} members: {error}"))


def _check_end(shard: Path, offset: int) -> None:
    """Python takes a header that is broken for the end, and the samples behind it would be missed."""
    with shard.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(
            "expected a header or the end's mark" if block else "the end's mark is missing"
        )


def _sample(shard: Path, name: str, members: dict[str, Any], read: Samples) -> Sample | None:
    key = members.pop("__key__")
    del members["__url__"]
    images = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    if len(images) > 1:
        raise DataError(f"{name}/{key} has {len(images)} images ({', '.join(images)}); expected one a sample")
    if not images:
        read.passed_over["sample without an image"] += 1
        return None
    read.passed_over.update(f".{suffix}" for suffix in members if suffix not in (*images, *_LABEL_KINDS))
    source: TarMember = members[images[0]]
    labels, several = None, False
    for kind in _LABEL_KINDS:
        if labels is None and kind in members:
            labels, several = _labels(members[kind], kind, f"{name}/{members[kind].name}")
    return Sample(shard, key, f"{name}/{source.name}", source, labels, several)


def _labels(member: TarMember, kind: str, name: str) -> tuple[tuple[str, ...] | None, bool]:
    """What a member says, and whether it may say any number; None where a JSON object has no label."""
    if member.size > _MAX_LABEL_BYTES:
        raise DataError(f"{name} has {member.size:,} bytes; expected a class, at most {_MAX_LABEL_BYTES:,}")
    try:
        text = source_bytes(member).decode("utf-8")
        value = json.loads(text) if kind == "json" else text.strip()
    except InvalidImage:  # cut short, as the archive is, which is told
        return None, False
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{name} can't be read as {'JSON' if kind == 'json' else 'UTF-8'}: {error}"
        ) from error
    if isinstance(value, dict):
        if "label" in value and "labels" in value:
            raise DataError(
                f"{name} has label and labels; expected label for one class, or labels for several"
            )
        if "label" not in value and "labels" not in value:
            return None, False
        several = "labels" in value
        value = value["labels"] if several else value["label"]
        if several and not isinstance(value, list):
            raise DataError(f"{name}: labels is {value!r}; expected a list")
    items = value if isinstance(value, list) else [value]
    named = []
    for item in items:
        label = str(item).strip() if isinstance(item, str | int) and not isinstance(item, bool) else ""
        if not label or not label.isprintable():
            raise DataError(
                f"{name} has the label {item!r}; expected a text that can be printed, or a number"
            )
        named.append(label)
    return tuple(dict.fromkeys(named)), isinstance(value, list)
