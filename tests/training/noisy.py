"""A run that makes mistakes: a fifth of its pictures have a wrong label, and its classes odd names."""

import contextlib
import random
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from tests.training.pictures import picture
from training.cli import main

# In the order of the logits; pages and cards must not take them for markup.
NAMES = ("blue *sea*", "green & <b>co", "røð")
COUNT = 60
_OPTIONS = (
    *("--arch", "resnet20-cifar", "--input-size", "8", "--resize-size", "10", "--epochs", "3"),
    *("--batch-size", "8", "--workers", "0", "--threads", "1", "--learning-rate", "0.01"),
)


@dataclass(frozen=True)
class Noisy:
    """A run on 3 × 60 pictures, exported after it.

    Attributes:
        data: the folder of pictures.
        run: the run's folder.
        fit, export: what the commands said.
        repository, package: where it was exported to.
    """

    data: Path
    run: Path
    fit: Result
    export: Result
    repository: Path
    package: Path


def write_noisy_folders(root: Path, count: int = COUNT, seed: int = 0) -> Path:
    """`count` pictures in each of root/<name>; every fifth shows another class."""
    draw = random.Random(seed)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(count):
            shown = (label + draw.randint(1, 2)) % 3 if number % 5 == 0 else label
            picture(shown, seed + 1000 * label + number).save(root / name / f"{number:03}.png")
    return root


def make_noisy(work: Path) -> Noisy:
    """Train and export in `work`."""
    data = write_noisy_folders(work / "noisy")
    with contextlib.chdir(work):
        fit = CliRunner().invoke(main, ["fit", "--data", "noisy", *_OPTIONS])
        assert fit.exit_code == 0, fit.output
        export = CliRunner().invoke(main, ["export", "--licence", "CC0-1.0", "--name", "noisy"])
        assert export.exit_code == 0, (export.output, export.exception)
    (run,) = (work / "runs").iterdir()
    return Noisy(data, run, fit, export, work / "models", work / "models" / "noisy" / "1")
