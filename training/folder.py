"""A folder of images, a subfolder for each class → a listing."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from training.errors import DataError
from training.image_files import SUFFIXES, describe_passed_over, find_images
from training.layout import ALL, class_names, parts_of, training_classes
from training.listing import Entry, Listing, check_recordable


def list_folder(root: Path) -> Listing:
    """Find the images under `root`.

    Args:
        root: holds `<class>/…` folders, or the parts that `layout` names, each of which holds
            `<class>/…` folders. Files whose suffix isn't in `SUFFIXES` are passed over.

    Raises:
        DataError: it can't be read, has no classes to learn, or parts that don't fit each other.
    """
    check_recordable(root)
    if not root.is_dir():
        raise DataError(
            f"data is {str(root)!r}; expected 'digits' or an existing folder with a folder for each class, "
            "a .csv or .parquet table, a folder of .tar shards or their pattern"
        )
    try:
        return _listed(root, parts_of(root))
    except OSError as error:
        raise DataError(f"{error.filename or root}: can't be read: {error.strerror}") from error


def _listed(root: Path, folders: Mapping[str, Path]) -> Listing:
    classes = training_classes(folders.get(ALL) or folders["train"])
    parts: dict[str, list[Entry]] = {}
    passed_over: Counter[str] = Counter()
    for part, folder in folders.items():
        unknown = set(class_names(folder)) - set(classes)
        if unknown:
            raise DataError(
                f"{folder} has classes that {folders['train'].name}/ hasn't: {', '.join(sorted(unknown))}; "
                f"{folders['train'].name}/ has {', '.join(classes)}"
            )
        parts[part] = []
        passed_over["outside the class folders"] += sum(
            entry.suffix.lower() in SUFFIXES and entry.is_file() for entry in folder.iterdir()
        )
        for label, name in enumerate(classes):
            if not (folder / name).is_dir():
                continue
            found = find_images(folder / name)
            names = [(path, path.relative_to(root).as_posix()) for path in found.paths]
            parts[part] += [Entry(path, (label,), name, name) for path, name in names]
            passed_over += found.passed_over
    return Listing(
        name=root.resolve().name or "data",
        origin=root,
        classes=classes,
        parts=parts,
        titles={part: f"{folder.name}/" for part, folder in folders.items() if part != ALL},
        keyed_by="each path relative to the data folder",
        expected=", ".join(sorted(SUFFIXES)),
        passed_over=describe_passed_over(+passed_over),
    )
