"""The command `fovea import-model`."""

import math
import re
import shlex
from pathlib import Path
from typing import Any

import click

from service.errors import FoveaError
from service.manifest import INTERPOLATIONS  # without Pillow, which other commands wait for


def _channels(_: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Three numbers with commas between them, in the order of the model's channels."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise click.BadParameter(
            f"{value!r}; expected three numbers with commas between them, or one for all"
        )
    if option.name == "std" and min(numbers) <= 0:
        raise click.BadParameter(f"{value!r}; expected numbers above 0")
    return numbers


def _scale(_: click.Context, __: click.Parameter, value: str) -> float:
    number, slash, divisor = value.partition("/")
    try:
        scale = float(number) / (float(divisor) if slash else 1)
    except (ValueError, ZeroDivisionError):
        scale = math.nan
    if not 0 < scale < math.inf:
        raise click.BadParameter(f"{value!r}; expected a number above 0, such as 1/255 or 1")
    return scale


def _size(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", value)
    if match is None or max(size := (int(match[1]), int(match[2] or match[1]))) > 4096:
        raise click.BadParameter(
            f"{value!r}; expected pixels up to 4096, such as 224, or height x width: 224x192"
        )
    return size


@click.command("import-model")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.onnx")
@click.option("--name", help="The model's.  [default: the file's]")
@click.option(
    "--model-repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Where packages live: <repository>/<name>/<version>.",
)
@click.option("--version", type=click.IntRange(1, 999_999_999), help="[default: the next free one]")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.txt",
    help="One label a line, in the order of the logits.  [default: 0, 1, 2, …]",
)
@click.option(
    "--input-size",
    callback=_size,
    metavar="PIXELS|HxW",
    help="Of the model's input, where the graph leaves it open.",
)
@click.option(
    "--resize-size",
    type=click.IntRange(1, 8192),
    metavar="PIXELS",
    help="The short side is brought to this first; then the input is cut from the centre.  "
    "[default: 8/7 of the input]",
)
@click.option(
    "--interpolation", type=click.Choice(list(INTERPOLATIONS)), default="bilinear", show_default=True
)
@click.option(
    "--scale",
    callback=_scale,
    default="1/255",
    show_default=True,
    help="Pixels, 0 to 255, are multiplied by it; then the mean is subtracted and the standard deviation "
    "divided by.",
)
@click.option(
    "--mean",
    callback=_channels,
    metavar="A,B,C",
    help="Of scaled pixels, in the order of the model's channels.  [default: ImageNet's]",
)
@click.option("--std", callback=_channels, metavar="A,B,C", help="As --mean.")
@click.option(
    "--layout",
    type=click.Choice(["NCHW", "NHWC"]),
    help="Of the model's input.  [default: by which dimension is 3]",
)
@click.option(
    "--color-order",
    type=click.Choice(["RGB", "BGR"]),
    default="RGB",
    show_default=True,
    help="Of the model's channels.",
)
@click.option("--logits", metavar="TENSOR", help="[default: the only output, before its softmax or sigmoid]")
@click.option(
    "--probabilities",
    metavar="TENSOR",
    help="Instead of --logits: what a softmax or sigmoid gave; becomes logits again.",
)
@click.option(
    "--task",
    type=click.Choice(["single_label", "multi_label"]),
    help="[default: multi_label where the output is a sigmoid's, else single_label]",
)
@click.option(
    "--embedding",
    metavar="TENSOR",
    help="Any tensor of the graph: [batch, dimension], [batch, tokens, dimension] or [batch, channels, "
    "height, width], which is averaged.  [default: what goes into the last layer with weights; with "
    "--embedding-only the only output]",
)
@click.option("--embedding-only", is_flag=True, help="The model has no classes: CLIP's image tower, DINOv2.")
@click.option(
    "--token",
    type=click.Choice(["cls", "mean"]),
    help="Of an embedding [batch, tokens, dimension]: the first token, or the mean of all.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Images to compare the package with the model on.  [default: generated pictures]",
)
@click.option("--architecture", default="", help="For the record.  [default: the file's name]")
@click.option("--training-data", default="", help="For the record.")
@click.option("--licence", default="", help="Of the weights, for the record.")
def import_model_command(**options: Any) -> None:
    """Package an ONNX model that somebody else made.

    FILE takes floats, [batch, 3, height, width] or [batch, height, width, 3], and gives logits or
    probabilities, or with --embedding-only a vector. The package takes pixels: conversion,
    normalisation and transposition go into its graph, as does the embedding's way to unit length, and
    its batches are of any size. Nothing is published unless ONNX Runtime computes from the package
    what it computes from FILE: max|Δ| ÷ max|reference| at most 1e-4, or 1e-2 where FILE computes in
    float16, or 5e-2 where it is quantized to int8.

    \b
    fovea import-model resnet50.onnx --labels imagenet.txt
    fovea import-model caffe.onnx --color-order BGR --scale 1 --mean 103.939,116.779,123.68 --std 1
    fovea import-model clip-image.onnx --embedding-only --resize-size 224 --interpolation bicubic \\
        --mean 0.481,0.458,0.408 --std 0.269,0.261,0.276
    fovea import-model dinov2.onnx --embedding-only --token cls --input-size 224
    """
    try:
        from service.cli.import_model.importing import import_model
        from service.cli.import_model.settings import ImportSettings
    except ModuleNotFoundError as error:
        extra = {"onnx": "import", "onnxruntime": "serve"}.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise click.ClickException(
            f"{error.name} isn't installed; import-model needs fovea-serving[{extra}]: "
            f"pip install 'fovea-serving[{extra}]'"
        ) from error
    file, repository = options["file"], options.pop("model_repository")
    given = {key: value for key, value in options.items() if value is not None}
    given.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem).lstrip("_.-")[:128])
    try:
        imported = import_model(ImportSettings(repository=repository, **given), click.echo)
    except FoveaError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"the same as the model by itself, {imported.comparison}")
    click.echo(f"published {imported.folder}")
    if imported.warning:
        click.secho(f"warning: {imported.warning}", fg="yellow", err=True)
    click.echo(f"next: fovea serve --model-repository {shlex.quote(str(repository))}")
