"""The options that describe a training run, which several commands of fovea-train take."""

from pathlib import Path

import click

from service.preprocess import INTERPOLATIONS
from training.architecture_names import ARCH_HELP
from training.cli_options import SCALED_DECODE_HELP, channels
from training.cli_recipe import recipe_option
from training.cli_sections import section, together
from training.transforms import CROPS

# Written out here, for what defines them needs PyTorch, and --help doesn't. A test holds them equal.
LOSSES = (
    *("cross-entropy", "binary-cross-entropy", "margin"),
    *("arcface", "subcenter-arcface", "proxy-anchor", "multi-similarity", "triplet"),
)
POOLINGS = ("avg", "gem")
OPTIMIZERS = ("sgd", "adamw", "lamb")
TRACKERS = ("tensorboard", "mlflow")

_SHARE = click.FloatRange(0, 1, max_open=True)


def _names(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names with commas between them; 'none' is none of them."""
    names = tuple(name.strip() for name in (value or "none").split(",") if name.strip() not in ("", "none"))
    for name in names:
        if name not in TRACKERS:
            raise click.BadParameter(f"{name!r}; expected some of {', '.join(TRACKERS)}, or none")
    return names


def _held_out(_context: click.Context, _option: click.Parameter, value: str | None) -> int | tuple[str, ...]:
    """A number of classes, or their names with commas between them."""
    if not value:
        return 0
    if value.isdecimal():
        return int(value)
    return tuple(name.strip() for name in value.split(","))


_data, _network, _picture = section("Data"), section("Network"), section("Pictures")

data_options = together(
    recipe_option(section("Recipe")),
    _data(
        "--data",
        metavar="digits|FOLDER|TABLE|SHARDS",
        help="The built-in handwritten digits; a folder: <class>/*.jpg, or train/ with val/ or test/ or "
        "both, each with <class>/*.jpg (validation/, valid/, training/ and testing/ do too); a .csv or "
        ".parquet with columns path, label or labels, and split if you like; or WebDataset shards: "
        "'train-{000..009}.tar', or a folder of .tar. Scores are always reported on images that neither the "
        "weights nor the choice of the best checkpoint saw.",
    ),
    _data("--skip-broken", is_flag=True, help="Leave out files that can't be decoded."),
    _data(
        "--holdout-classes",
        callback=_held_out,
        metavar="NUMBER|NAMES",
        help="Keep the last so many classes, or those named (a,b,c), out of training: val and test are then "
        "images of these alone, scored by retrieval.",
    ),
    _data(
        "--workers",
        type=click.IntRange(0),
        help="Processes that load images; 0 loads in the main one.  [default: one a core; digits 0]",
    ),
    _network("--arch", default="resnet18", show_default=True, metavar="NAME", help=ARCH_HELP),
    _network(
        "--pretrained",
        is_flag=True,
        help="Start from the weights published for it; the head starts at random.",
    ),
    _network(
        "--pretrained-version",
        default="",
        metavar="VERSION",
        help="Of --pretrained, where several are published, such as v1 or v2.  [default: the best]",
    ),
    _network(
        "--init-weights",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Start from these weights of the same architecture, .pth or .safetensors; the head starts at "
        "random when its number of classes differs.",
    ),
    _network("--dropout", type=_SHARE, help="Of the pooled features.  [default: the architecture's]"),
    _network("--pooling", type=click.Choice(POOLINGS), default="avg", show_default=True),
    _network(
        "--projection",
        type=click.IntRange(0),
        default=0,
        metavar="DIM",
        help="Project the pooled features to an embedding of so many dimensions; the head follows it.",
    ),
    _picture(
        "--input-size",
        type=click.IntRange(8, 4096),
        metavar="PIXELS",
        help="Side of the network's square input.  [default: 224 for most; -cifar 32; digits 16]",
    ),
    _picture(
        "--train-size",
        type=click.IntRange(8, 4096),
        metavar="PIXELS",
        help="The same in training only, with --crop resized.  [default: --input-size]",
    ),
    _picture(
        "--resize-size",
        type=click.IntRange(8, 8192),
        metavar="PIXELS",
        help="The short side is brought to this, then the input is cut from the centre.  "
        "[default: 8/7 of the input for most; -cifar the input]",
    ),
    _picture(
        "--interpolation",
        type=click.Choice(list(INTERPOLATIONS)),
        help="[default: the architecture's, bilinear for most]",
    ),
    _picture("--jpeg-scaled-decode", is_flag=True, help=SCALED_DECODE_HELP),
    _picture(
        "--mean",
        callback=channels,
        metavar="R,G,B",
        help="Of pixels from 0 to 1.  [default: the architecture's, ImageNet's for most; digits' own]",
    ),
    _picture("--std", callback=channels, metavar="R,G,B", help="As --mean."),
    _picture(
        "--crop",
        type=click.Choice(["auto", *CROPS]),
        default="auto",
        show_default=True,
        help="What training sees of each image: a part of random area, the whole shifted over black, or all "
        "of it; auto shifts up to 64 pixels of input.",
    ),
)

_augment = section("Augmentation, of whole batches on the device (0 is off)")

augmentation_options = together(
    _augment(
        "--mirror/--no-mirror", default=None, help="Mirror half of the images.  [default: mirror; digits not]"
    ),
    _augment("--shift", type=_SHARE, default=0.0, metavar="SHARE", help="By up to this share of the side."),
    _augment("--rotation", type=click.FloatRange(0, 180), default=0.0, metavar="DEGREES", help="Up to."),
    _augment("--shear", type=click.FloatRange(0, 60), default=0.0, metavar="DEGREES", help="Up to."),
    _augment(
        "--zoom", type=_SHARE, default=0.0, metavar="SHARE", help="By a factor from 1 - SHARE to 1 + SHARE."
    ),
    _augment(
        "--elastic",
        type=click.FloatRange(0, 0.2),
        default=0.0,
        metavar="SHARE",
        help="Local warping that moves points by about this share of the side; 0.02 is plenty.",
    ),
    _augment(
        "--colour",
        type=click.FloatRange(0, 1),
        default=0.0,
        metavar="STRENGTH",
        help="Of changes of brightness, contrast, saturation and hue; 0.4 is usual.",
    ),
    _augment(
        "--lighting",
        type=click.FloatRange(0, 2),
        default=0.0,
        metavar="DEVIATION",
        help="AlexNet's shifts along the principal axes of colour; 0.1 is its own.",
    ),
    _augment(
        "--erasing", type=click.FloatRange(0, 1), default=0.0, metavar="PROBABILITY", help="Of a rectangle."
    ),
    _augment(
        "--rand-augment",
        type=click.IntRange(0, 29),
        default=0,
        metavar="MAGNITUDE",
        help="Random operations of this strength; 9 is usual.",
    ),
    _augment("--rand-augment-operations", type=click.IntRange(1, 12), default=2, show_default=True),
    _augment("--trivial-augment", is_flag=True, help="One random operation of random strength."),
    _augment("--mixup", type=click.FloatRange(0), default=0.0, metavar="ALPHA", help="0.2 is usual."),
    _augment(
        "--cutmix",
        type=click.FloatRange(0),
        default=0.0,
        metavar="ALPHA",
        help="1 is usual; with --mixup each batch draws one of the two.",
    ),
)

_learning = section("Learning")

learning_options = together(
    _learning(
        "--batch-size", type=click.IntRange(2), help="Images at a time, in each process.  [default: 32]"
    ),
    _learning(
        "--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches to a step."
    ),
    _learning("--optimizer", type=click.Choice(OPTIMIZERS), default="sgd", show_default=True),
    _learning(
        "--learning-rate",
        type=click.FloatRange(0, min_open=True),
        help="The highest of the schedule: linear warm-up, then half a cosine to zero.  [default: for n "
        "images a step sgd 0.1 × n ÷ 256 (digits 0.05), adamw 0.001 × n ÷ 1024, lamb 0.008 × √(n ÷ 2048); "
        "with --pretrained or --init-weights a tenth]",
    ),
    _learning(
        "--weight-decay", type=click.FloatRange(0), help="[default: sgd 0.0001, adamw 0.05, lamb 0.02]"
    ),
    _learning(
        "--clip-norm",
        type=click.FloatRange(0),
        help="Of the gradients, at most; 0 is any.  [default: 1 for losses that learn distances, and for "
        "zfnet and nin, else 0]",
    ),
    _learning(
        "--loss",
        type=click.Choice(LOSSES),
        help="[default: cross-entropy; binary with several labels; margin of capsnet]",
    ),
    _learning(
        "--loss-settings",
        default="",
        metavar="NAME=NUMBER,…",
        help="Of the loss, instead of its authors': arcface margin_degrees=28.6,scale=64; subcenter-arcface "
        "sub_centers=3 too; proxy-anchor margin=0.1,alpha=32; multi-similarity alpha=2,beta=50,base=0.5,"
        "epsilon=0.1; triplet margin=0.2; margin m_plus=0.9,m_minus=0.1,absent_weight=0.5,"
        "reconstruction=0.0005. binary-cross-entropy target_threshold=0.2 counts each label of a mixed "
        "picture in full whose share is larger.",
    ),
    _learning("--label-smoothing", type=_SHARE, default=0.0, show_default=True),
    _learning("--class-weights", is_flag=True, help="Let rare classes count more."),
    _learning(
        "--images-per-class",
        type=click.IntRange(2),
        help="Batches of so many images each of some classes.  [default: 4 for multi-similarity and triplet]",
    ),
    _learning("--bf16", is_flag=True, help="Compute in bfloat16 where that is safe; weights stay float32."),
    _learning("--channels-last/--no-channels-last", default=True, show_default=True, help="In memory."),
    _learning("--compile", is_flag=True, help="By torch.compile; wants a C++ compiler."),
    _learning("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random."),
    _learning(
        "--threads", type=click.IntRange(1), help="Of PyTorch, on the CPU.  [default: one a core; digits 1]"
    ),
    _learning("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
)

_schedule, _transfer, _run = section("Schedule"), section("Transfer learning"), section("Run")

run_options = together(
    _schedule("--epochs", type=click.IntRange(1), help="Passes over the images.  [default: 30; digits 20]"),
    _schedule("--warmup-epochs", type=click.IntRange(0), help="[default: a tenth of the epochs, at most 5]"),
    _schedule(
        "--ema-decay",
        type=_SHARE,
        default=0.0,
        help="Score and export a running average of the weights; 0.9999 for long runs, 0.99 for short ones.",
    ),
    _schedule(
        "--patience",
        type=click.IntRange(0),
        default=0,
        metavar="EPOCHS",
        help="Stop when val hasn't become better for so long.",
    ),
    _transfer(
        "--freeze",
        default="",
        metavar="STAGE",
        help="Let all stages from the input to this one keep their weights (resnet: stem, layer1 …).",
    ),
    _transfer(
        "--unfreeze-at-epoch", type=click.IntRange(1), metavar="EPOCH", help="From then on all stages learn."
    ),
    _transfer(
        "--layer-decay",
        type=click.FloatRange(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="Each stage learns at so much of the next one's rate.",
    ),
    _run(
        "--checkpoint-every-steps",
        type=click.IntRange(0),
        help="Besides each epoch's end; 0 for never.  [default: 500]",
    ),
    _run(
        "--trackers",
        callback=_names,
        default="tensorboard",
        show_default=True,
        metavar="NAMES",
        help="tensorboard (events/ in the run's folder), mlflow (extra mlflow), both with a comma, or none.",
    ),
    _run(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="The run's folder.  [default: runs/<data>-<arch>-<time>]",
    ),
    _run(
        "--resume",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="Go on with a run that was stopped, by whatever, from its last checkpoint. It needs no other "
        "option: config.toml has them all.",
    ),
)
