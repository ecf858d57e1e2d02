"""fovea-train export."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.preprocess import INTERPOLATIONS, Preprocessing
from training.cli_options import channels, told
from training.errors import SettingError
from training.publish import MAX_VERSION
from training.splits import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:  # what needs PyTorch is imported inside, so that --help doesn't
    from training.export import Exported

_OF_WEIGHTS = ("arch", "labels", "input_size", "resize_size", "interpolation", "mean", "std", "training_data")
_OF_RUNS = ("run", "checkpoint")


@click.command("export")
@click.option(
    "--run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A run of fovea-train fit.  [default: the newest in runs/]",
)
@click.option("--checkpoint", type=click.Choice(["best", "last"]), help="Of the run.  [default: best]")
@click.option(
    "--model-repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Where packages live: <repository>/<name>/<version>.",
)
@click.option("--name", help="The model's.  [default: <data>-<arch>; for --weights the architecture]")
@click.option("--version", type=click.IntRange(1, MAX_VERSION), help="[default: the next free one]")
@click.option("--licence", default="", help="Of the weights, for the record.")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Images to compare ONNX Runtime with PyTorch on.  [default: the run's test images; for --weights "
    "crops of scikit-learn's two photographs]",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.pth",
    help="Export weights trained elsewhere instead of a run; wants --arch and --labels.",
)
@click.option("--arch", metavar="NAME", help="Of --weights, as for fit.")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.txt",
    help="Of --weights: one label a line, in the order of the logits.",
)
@click.option(
    "--input-size",
    type=click.IntRange(8, 4096),
    metavar="PIXELS",
    help="Of --weights.  [default: 224; -cifar 32]",
)
@click.option(
    "--resize-size",
    type=click.IntRange(8, 8192),
    metavar="PIXELS",
    help="Of --weights: the short side is brought to this first.  "
    "[default: 8/7 of the input; -cifar the input]",
)
@click.option(
    "--interpolation",
    type=click.Choice(list(INTERPOLATIONS)),
    help="Of --weights.  [default: bilinear]",
)
@click.option(
    "--mean",
    callback=channels,
    metavar="R,G,B",
    help="Of --weights, of pixels from 0 to 1.  [default: ImageNet's]",
)
@click.option("--std", callback=channels, metavar="R,G,B", help="As --mean.")
@click.option("--training-data", help="Of --weights, for the record.")
@told
def export_command(**options: Any) -> None:
    """Publish a run, or weights trained elsewhere, as a model package.

    Fails, and publishes nothing, unless ONNX Runtime agrees with PyTorch on real images: max|Δ| ÷
    max|reference| at most 1e-4, and the same top-1 on every one.

    \b
    fovea-train export
    fovea-train export --arch resnet20-cifar --weights file.pth --labels labels.txt --input-size 32 \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    repository: Path = options["model_repository"]
    exported = _export(repository, options)
    click.echo(
        f"{exported.agreement}\n"
        f"published {exported.folder}\n"
        f"next: fovea serve --model-repository {shlex.quote(str(repository))}"
    )


def _export(repository: Path, options: dict[str, Any]) -> "Exported":
    from training.run_export import export_run, newest_run
    from training.weights_export import export_weights, read_labels

    common: dict[str, Any] = {
        "repository": repository,
        **{name: options[name] for name in ("name", "version", "licence", "images")},
    }
    if options["weights"] is None:
        _refuse(options, _OF_WEIGHTS, "is for --weights, not for a run")
        run = options["run"] or newest_run(Path("runs"))
        return export_run(run, checkpoint=options["checkpoint"] or "best", say=click.echo, **common)
    _refuse(options, _OF_RUNS, "is for runs, not for --weights")
    for name in ("arch", "labels"):
        if options[name] is None:
            raise SettingError(f"--weights needs --{name} too")
    click.echo(f"exporting {options['weights']} as {options['arch']}")
    return export_weights(
        options["weights"],
        arch=options["arch"],
        labels=read_labels(options["labels"]),
        preprocessing=_preprocessing(options),
        mean=options["mean"] or IMAGENET_MEAN,
        std=options["std"] or IMAGENET_STD,
        training_data=options["training_data"] or "",
        **common,
    )


def _preprocessing(options: dict[str, Any]) -> Preprocessing:
    from training.models import architecture

    design = architecture(options["arch"])
    size = options["input_size"] or design.input_size
    try:
        return Preprocessing(
            resize_short_side=options["resize_size"] or design.resize_for(size),
            crop_height=size,
            crop_width=size,
            interpolation=options["interpolation"] or "bilinear",
        )
    except ValueError as error:
        raise SettingError(str(error)) from error


def _refuse(options: dict[str, Any], names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if options[name] is not None:
            raise SettingError(f"--{name.replace('_', '-')} {reason}")
