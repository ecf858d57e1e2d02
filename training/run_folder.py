"""A run's folder: made empty, then filled with what a later command or a person reads.

config.toml, splits.json, metrics.jsonl (a line an epoch), checkpoints/, and summary.json, which is there
only when the run came to its end.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from service.errors import InvalidImage
from training.data import Dataset
from training.errors import RunError, SettingError
from training.metrics import Tally


@dataclass(frozen=True)
class Summary:
    """How a run ended: summary.json.

    Attributes:
        run: its folder.
        architecture: of the network.
        best_epoch: the one whose weights are the best checkpoint, from 1.
        val_accuracy: of the best checkpoint, on the split it was chosen by.
        test_accuracy, test_top5_accuracy: of the best checkpoint, on images that nothing was chosen by.
        test_images: how many those are.
        epochs: how many were run.
        seconds: of training and evaluation.
    """

    run: str
    architecture: str
    best_epoch: int
    val_accuracy: float
    test_accuracy: float
    test_top5_accuracy: float
    test_images: int
    epochs: int
    seconds: float


def make_run_folder(output: Path | None, data: str, arch: str) -> Path:
    """A new, empty folder with `checkpoints/` in it: `output`, or one named after the time under runs/.

    Raises:
        SettingError: `output` is there already and not empty, or can't be made.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = output or Path("runs", f"{data}-{arch}-{stamp}")
    attempt = 1
    while output is None and folder.exists():
        attempt += 1
        folder = Path("runs", f"{data}-{arch}-{stamp}-{attempt}")
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise SettingError(f"--output is {folder}, which isn't empty; expected a new folder")
        (folder / "checkpoints").mkdir(parents=True)
    except OSError as error:
        raise SettingError(f"the run's folder {folder} can't be made: {error.strerror}") from error
    return folder


def write_splits(folder: Path, dataset: Dataset) -> None:
    """Leave splits.json: the names of the images that are val, test and left out; train is the rest."""
    if dataset.names:
        names = {part: list(listed) for part, listed in dataset.names.items()}
        text = json.dumps(names, indent=0, ensure_ascii=True) + "\n"
        (folder / "splits.json").write_text(text, encoding="utf-8")


def write_summary(folder: Path, summary: Summary) -> None:
    """Leave summary.json."""
    (folder / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say what stopped a run where its folder or an image can't be used any more.

    Raises:
        RunError: instead of an OSError or a broken image; names the file.
    """
    try:
        yield
    except (OSError, InvalidImage) as error:
        # What a loader's process raised has no fields, only a text.
        text = error.strerror if isinstance(error, OSError) else None
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise RunError(f"the run in {folder} was stopped: {where}{text or error}") from error


def log_epoch(
    folder: Path, epoch: int, train: Tally, val: Tally, learning_rate: float, seconds: float
) -> None:
    """Add a line to metrics.jsonl."""
    line: dict[str, Any] = {
        "epoch": epoch,
        "learning_rate": learning_rate,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy(),
        "val_loss": val.loss,
        "val_accuracy": val.accuracy(),
        "val_top5_accuracy": val.accuracy(5),
        "train_seconds": round(seconds, 3),
        "train_images_per_second": round(train.images / seconds, 1),
    }
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
