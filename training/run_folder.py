"""A run's folder: made empty, then filled with what a later command or a person reads.

config.toml, splits.json, metrics.jsonl (a line an epoch), checkpoints/, events/ for TensorBoard, and
summary.json, which is there only when the run came to its end.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from service.errors import InvalidImage
from training.data import Dataset
from training.errors import RunError, SettingError
from training.whole_file import whole_file


@dataclass(frozen=True)
class Summary:
    """How a run ended: summary.json.

    Attributes:
        run: its folder.
        architecture: of the network.
        best_epoch: the one whose weights are the best checkpoint, from 1.
        selects_by: the metric that it was chosen by.
        val: the best checkpoint's scores on the split that it was chosen by.
        test: its scores on images that nothing was chosen by.
        test_images: how many those are.
        epochs: how many were run.
        seconds: of training and evaluation.
    """

    run: str
    architecture: str
    best_epoch: int
    selects_by: str
    val: dict[str, float]
    test: dict[str, float]
    test_images: int
    epochs: int
    seconds: float

    def document(self) -> dict[str, Any]:
        """What summary.json holds: val_accuracy, test_accuracy and so on stand side by side."""
        document = asdict(self)
        for part in ("val", "test"):
            document |= {f"{part}_{name}": value for name, value in document.pop(part).items()}
        return document


def make_run_folder(output: Path | None, data: str, arch: str) -> Path:
    """A new, empty folder with `checkpoints/` in it: `output`, or one named after the time under runs/.

    Raises:
        SettingError: `output` is there already and not empty, or can't be made.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = f"{data}-{arch}-{stamp}".replace(":", "-")
    folder = output or Path("runs", name)
    attempt = 1
    while output is None and folder.exists():
        attempt += 1
        folder = Path("runs", f"{name}-{attempt}")
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


def shown_score(name: str, scores: Mapping[str, float]) -> str:
    """Such as 'recall at 1 87.50%'; says so where it couldn't be measured."""
    value = scores.get(name, math.nan)
    return f"{name.replace('_', ' ')} {'not measurable' if math.isnan(value) else f'{value:.2%}'}"


def write_summary(folder: Path, summary: Summary) -> None:
    """Leave summary.json."""
    text = json.dumps(summary.document(), indent=2) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")


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


def log_epoch(folder: Path, line: Mapping[str, float]) -> None:
    """Add a line to metrics.jsonl; numbers that don't exist (nan) are left out."""
    text = json.dumps({name: value for name, value in line.items() if not math.isnan(value)})
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def forget_epochs(folder: Path, behind: int) -> None:
    """Take what a killed process logged of epochs behind `behind`, whole or in part, out of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            epoch = json.loads(line)["epoch"]
        except (ValueError, KeyError, TypeError):
            break
        if epoch > behind or not line.endswith("\n"):
            break
        kept.append(line)
    with whole_file(path) as file:
        file.write("".join(kept).encode())
