"""CIFAR-10 as JPEG files, whole or some of each class: <folder>/train/<class> and <folder>/test/<class>.

The files were compressed again (quality 75), so no score here can be held against the published tables.
"""

import argparse
import shutil
import tarfile
from pathlib import Path

from training.image_files import find_images

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg75.tar.xz"
WORK = ROOT / "benchmarks" / "work"


def add_options(parser: argparse.ArgumentParser) -> None:
    """--data, --work, --quick."""
    parser.add_argument(
        "--data",
        type=Path,
        default=ARCHIVE,
        help="the archive, or a folder with train/<class> and test/<class> (default: %(default)s)",
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, help="folder for runs and unpacked pictures (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds, without figures")


def pictures(data: Path, work: Path) -> Path:
    """The folder of `data`, unpacked only once where it is an archive.

    Raises:
        SystemExit: there is no archive.
    """
    if data.is_dir():
        return data
    folder = work / "cifar10"
    if not folder.exists():
        if not data.exists():
            raise SystemExit(f"no pictures to learn from: {data} is missing; name the archive with --data")
        partial = folder.with_name(f".{folder.name}")
        with tarfile.open(data) as content:
            content.extractall(partial, filter="data")
        partial.rename(folder)
    return folder


def some(source: Path, target: Path, train: int, test: int) -> Path:
    """Copies of so many pictures of each class, the first by name.

    Args:
        source: as `pictures` gives it.
        target: emptied before.
        train, test: of each class.
    """
    shutil.rmtree(target, ignore_errors=True)
    for part, count in (("train", train), ("test", test)):
        for folder in sorted(path for path in (source / part).iterdir() if path.is_dir()):
            kept = target / part / folder.name
            kept.mkdir(parents=True)
            for path in sorted(find_images(folder).paths)[:count]:
                shutil.copy(path, kept)
    return target
