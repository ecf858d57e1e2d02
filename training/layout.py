"""How people lay images out: a folder for each class, perhaps inside folders for training and scoring."""

from pathlib import Path

from training.errors import DataError
from training.image_files import find_images

ALL = "all"
# What people call the three parts, in any case.
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
PART_OF = {name: part for part, names in PART_NAMES.items() for name in names}


def parts_of(root: Path) -> dict[str, Path]:
    """The folders of 'train' and of 'val' or 'test' or both; {ALL: root} where there are none.

    Raises:
        DataError: there are folders named like parts that hold folders of images, but not those two or
            three. Taken for classes they would teach nothing.
        OSError: a folder can't be read.
    """
    named: dict[str, list[Path]] = {}
    for entry in sorted(root.iterdir()):
        part = PART_OF.get(entry.name.casefold())
        if part and entry.is_dir():
            named.setdefault(part, []).append(entry)
    if "train" in named and len(named) > 1:
        for folders in named.values():
            if len(folders) > 1:
                raise DataError(f"{root} holds {_listed(folders)}; expected one of them")
        return {part: named[part][0] for part in PART_NAMES if part in named}
    lone = [folder for folders in named.values() for folder in folders if _holds_folders_of_images(folder)]
    if lone:
        raise DataError(
            f"{root} holds {_listed(sorted(lone))} with folders of images in it; "
            "expected train/ with val/ or test/ or both, or a folder for each class and no parts"
        )
    return {ALL: root}


def training_classes(folder: Path) -> tuple[str, ...]:
    """The classes to learn.

    Raises:
        DataError: there are fewer than two, or one has a name that can't be printed.
        OSError: the folder can't be read.
    """
    names = class_names(folder)
    if len(names) < 2:
        raise DataError(
            f"{folder} holds {len(names)} class folder{'s' * (len(names) != 1)}"
            f"{f' ({names[0]!r})' if names else ''}; expected at least 2, such as cats/ and dogs/"
        )
    return names


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the folders in `folder` that aren't hidden, sorted.

    Raises:
        DataError: one can't be printed.
        OSError: the folder can't be read.
    """
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    for name in names:
        if not name.isprintable():
            raise DataError(f"class folder {name!r} in {folder} has a name that can't be printed; rename it")
    return tuple(names)


def _listed(folders: list[Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders)


def _holds_folders_of_images(folder: Path) -> bool:
    return any(find_images(folder / name).paths for name in class_names(folder))
