"""A listing → a data set: every picture checked, copies kept together, three parts that share none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from training.errors import BrokenImages, DataError
from training.image_check import (
    LISTED,
    Track,
    check_images,
    describe_broken,
    describe_left_out,
    untracked,
)
from training.layout import ALL
from training.listing import Entry, Labels, Listing, split_of
from training.splits import MULTI_LABEL, Dataset, Defaults, partition
from training.stratify import stratify

TEST_SHARE = 0.15
VAL_SHARE = 0.15

_Parts = Mapping[str, Sequence[Entry]]


def assemble(listing: Listing, skip_broken: bool = False, track: Track = untracked) -> Dataset:
    """Check and split what was listed.

    Pictures with the same bytes never stand in two parts.

    Args:
        listing: of a folder, a table or shards.
        skip_broken: leave pictures that can't be decoded out, instead of refusing.
        track: shows the progress of the check, which decodes every picture once.

    Raises:
        DataError: there is nothing to train on, a class has too few pictures, or copies of a picture stand
            for different classes.
        BrokenImages: lists what can't be decoded.
    """
    found = [entry for entries in listing.parts.values() for entry in entries]
    checked = check_images([entry.source for entry in found], track)
    broken = [*listing.damaged]
    broken += [(entry.name, each.fault) for entry, each in zip(found, checked, strict=True) if each.fault]
    if broken and not skip_broken:
        raise BrokenImages(describe_broken(broken, listing.origin))
    notes = [listing.passed_over]
    if broken:
        notes.append(describe_left_out(broken))

    contents = {each.source: each.digest for each in checked if not each.fault}
    parts: _Parts = {
        part: [
            replace(entry, content=contents[entry.source]) for entry in entries if entry.source in contents
        ]
        for part, entries in listing.parts.items()
    }
    _refuse_other_classes(parts, listing.classes)
    _check_counts(parts, listing, listing.passed_over)
    if ALL not in parts:
        parts, copies = _without_copies(parts)
        if copies:
            notes.append(
                f"left out {copies:,} image{'s' * (copies != 1)} with copies in a part that is scored on"
            )
        _check_counts(parts, listing, "copies of what other parts hold don't count")
    splits, rule = _three(parts, listing)
    notes += _missing(splits, listing)
    used = {entry.name for entries in splits.values() for entry in entries}
    return Dataset(
        name=listing.name,
        classes=listing.classes,
        train=split_of(splits["train"], len(listing.classes), listing.task),
        val=split_of(splits["val"], len(listing.classes), listing.task),
        test=split_of(splits["test"], len(listing.classes), listing.task),
        rule=rule,
        defaults=Defaults(),
        notes=tuple(note for note in notes if note),
        task=listing.task,
        names={
            "val": [entry.name for entry in splits["val"]],
            "test": [entry.name for entry in splits["test"]],
            "left_out": [entry.name for entry in found if entry.name not in used],
        },
        broken=tuple(broken),
    )


def _refuse_other_classes(parts: _Parts, classes: Sequence[str]) -> None:
    first: dict[bytes, Entry] = {}
    clashes = []
    for entry in (entry for entries in parts.values() for entry in entries):
        other = first.setdefault(entry.content, entry)
        if other.labels != entry.labels:
            clashes.append(
                f"  {other.name} ({_named(other.labels, classes)}) and {entry.name} "
                f"({_named(entry.labels, classes)})"
            )
    if clashes:
        more = [f"  … and {len(clashes) - LISTED} more"] if len(clashes) > LISTED else []
        raise DataError(
            "\n".join(
                [
                    f"{len(clashes)} image{'s' * (len(clashes) != 1)} with the same bytes in two classes; "
                    "expected one class for each:",
                    *clashes[:LISTED],
                    *more,
                ]
            )
        )


def _named(labels: Labels, classes: Sequence[str]) -> str:
    return ", ".join(repr(classes[label]) for label in labels) or "none"


def _without_copies(parts: _Parts) -> tuple[_Parts, int]:
    """Leave out of train what val or test holds, and of val what test holds; and how many that were."""
    kept: dict[str, list[Entry]] = {}
    taken: set[bytes] = set()
    for part in ("test", "val", "train"):
        if part in parts:
            kept[part] = [entry for entry in parts[part] if entry.content not in taken]
            taken |= {entry.content for entry in parts[part]}
    left_out = sum(map(len, parts.values())) - sum(map(len, kept.values()))
    return {part: kept[part] for part in parts}, left_out


def _check_counts(parts: _Parts, listing: Listing, remark: str) -> None:
    for part, entries in parts.items():
        there = {label for entry in entries for label in entry.labels}
        empty = [repr(name) for label, name in enumerate(listing.classes) if label not in there]
        # A part that is scored on may lack a class; learning one without images may not.
        if entries and (not empty or part not in (ALL, "train")):
            continue
        where = f" in {listing.titles[part]}" if part in listing.titles else ""
        whose = f" for {', '.join(empty)}" if entries else ""
        raise DataError(
            f"no usable image was found{where}{whose}; expected {listing.expected}"
            f"{f' ({remark})' if remark else ''}"
        )


def _three(parts: _Parts, listing: Listing) -> tuple[dict[str, list[Entry]], str]:
    """Train, val and test from what the user gave, and how, in words."""
    by_hash = f"by the SHA-256 of {listing.keyed_by}, copies together"
    if ALL in parts:
        test, val, train = _divided(parts[ALL], (TEST_SHARE, VAL_SHARE), listing, "")
        rule = f"of each class {TEST_SHARE:.0%} are test, {VAL_SHARE:.0%} val, the rest train, {by_hash}"
        return {"train": train, "val": val, "test": test}, rule
    titles = listing.titles
    if len(parts) == 3:
        given = {part: list(entries) for part, entries in parts.items()}
        return given, f"{titles['train']}, {titles['val']} and {titles['test']} as given"
    reported = "test" if "test" in parts else "val"
    val, train = _divided(parts["train"], (VAL_SHARE,), listing, f" in {titles['train']}")
    rule = (
        f"test is {titles[reported]} as given; of each class in {titles['train']} {VAL_SHARE:.0%} are val, "
        f"{by_hash}"
    )
    return {"train": train, "val": val, "test": list(parts[reported])}, rule


def _divided(
    entries: Sequence[Entry], shares: tuple[float, ...], listing: Listing, where: str
) -> list[list[Entry]]:
    keys = [entry.key for entry in entries]
    contents = [entry.content for entry in entries]
    if listing.task == MULTI_LABEL:
        labels = [entry.labels for entry in entries]
        indices = stratify(labels, keys, shares, listing.classes.__getitem__, contents, where)
    else:
        only = [entry.labels[0] for entry in entries]
        indices = partition(only, keys, shares, listing.classes.__getitem__, contents, where)
    return [[entries[index] for index in part] for part in indices]


def _missing(splits: _Parts, listing: Listing) -> list[str]:
    """Lines on classes that a part that is scored on doesn't show; where learning lacks one, an error."""
    if listing.task != MULTI_LABEL:
        return []
    lines = []
    for part in ("train", "val", "test"):
        there = {label for entry in splits[part] for label in entry.labels}
        lacking = [repr(name) for label, name in enumerate(listing.classes) if label not in there]
        if lacking and part == "train":
            raise DataError(
                f"no image for {', '.join(lacking)} is left to learn from after val and test were taken; "
                "expected more images of these, or parts of your own"
            )
        if lacking:
            lines.append(f"no {part} image has {', '.join(lacking)}")
    return lines
