"""fovea-train fit."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from service.preprocess import INTERPOLATIONS
from training.cli_options import SCALED_DECODE_HELP, channels, told
from training.transforms import CROPS


@click.command("fit")
@click.option(
    "--data",
    required=True,
    metavar="digits|FOLDER",
    help="The built-in handwritten digits, or a folder: <class>/*.jpg, or train/ with val/ or test/ or both, "
    "each with <class>/*.jpg (validation/, valid/, training/ and testing/ do too). Scores are "
    "always reported on images that neither the weights nor the choice of the best checkpoint saw.",
)
@click.option(
    "--arch",
    default="resnet18",
    show_default=True,
    metavar="NAME",
    help="The architecture: "
    "resnet18, 34, 50, 101 or 152; for pictures of about 32 pixels resnet20-cifar, 32, 44, 56 or 110.",
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the images.  [default: 30; digits 20]")
@click.option("--batch-size", type=click.IntRange(2), help="Images a step.  [default: 32]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="The highest of the schedule: linear warm-up, then half a cosine to zero.  "
    "[default: 0.1 × batch size ÷ 256; digits 0.05; with --init-weights a tenth]",
)
@click.option("--weight-decay", type=click.FloatRange(0), default=1e-4, show_default=True)
@click.option("--warmup-epochs", type=click.IntRange(0), help="[default: a tenth of the epochs, at most 5]")
@click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that load images; 0 loads in the main one.  [default: one a core; digits 0]",
)
@click.option(
    "--threads", type=click.IntRange(1), help="Of PyTorch, on the CPU.  [default: one a core; digits 1]"
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--input-size",
    type=click.IntRange(8, 4096),
    metavar="PIXELS",
    help="Side of the network's square input.  [default: 224; -cifar 32; digits 16]",
)
@click.option(
    "--resize-size",
    type=click.IntRange(8, 8192),
    metavar="PIXELS",
    help="The short side is brought to this, then the input is cut from the centre.  "
    "[default: 8/7 of the input; -cifar the input]",
)
@click.option(
    "--interpolation", type=click.Choice(list(INTERPOLATIONS)), default="bilinear", show_default=True
)
@click.option("--jpeg-scaled-decode", is_flag=True, help=SCALED_DECODE_HELP)
@click.option(
    "--mean",
    callback=channels,
    metavar="R,G,B",
    help="Of pixels from 0 to 1.  [default: ImageNet's; digits' own]",
)
@click.option("--std", callback=channels, metavar="R,G,B", help="As --mean.")
@click.option(
    "--crop",
    type=click.Choice(["auto", *CROPS]),
    default="auto",
    show_default=True,
    help="What training sees of each image: a part of random area, the whole shifted over black, or all of "
    "it; auto shifts up to 64 pixels of input.",
)
@click.option(
    "--mirror/--no-mirror", default=None, help="Mirror half of the images.  [default: mirror; digits not]"
)
@click.option(
    "--init-weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.pth",
    help="Start from these weights of the same architecture; the head starts at random when its number of "
    "classes differs.",
)
@click.option("--skip-broken", is_flag=True, help="Leave out files that can't be decoded.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The run's folder.  [default: runs/<data>-<arch>-<time>]",
)
@told
def fit_command(**options: Any) -> None:
    """Train a classifier.

    Leaves a folder with config.toml, metrics.jsonl (a line an epoch), checkpoints/best.pt and last.pt, and
    summary.json.
    """
    from training.options import FitOptions
    from training.train import fit

    summary = fit(FitOptions(**options, command=_command_line()), click.echo)
    click.echo(
        f"best val accuracy {summary.val_accuracy:.2%} (epoch {summary.best_epoch} of {summary.epochs})\n"
        f"test accuracy {summary.test_accuracy:.2%} on {summary.test_images:,} images, "
        f"after {summary.seconds:.0f} s\n"
        f"the run is in {summary.run}\n"
        f"next: fovea-train export --run {shlex.quote(summary.run)}"
    )


def _command_line() -> str:
    return shlex.join(["fovea-train", *sys.argv[1:]])
