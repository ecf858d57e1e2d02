"""fovea-train probe."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from service.preprocess import INTERPOLATIONS
from training.architecture_names import ARCH_HELP
from training.cli_options import SCALED_DECODE_HELP, channels, told
from training.cli_sections import SectionedCommand, section
from training.errors import SettingError

_data, _backbone, _head, _run = section("Data"), section("Backbone"), section("Head"), section("Run")
# What a run as a backbone says by itself.
_OF_RUNS = (
    "arch", "pretrained", "pretrained_version", "init_weights", "pooling", "input_size", "resize_size",
    "interpolation", "jpeg_scaled_decode", "mean", "std",
)  # fmt: skip


@click.command("probe", cls=SectionedCommand)
@_data(
    "--data",
    required=True,
    metavar="digits|FOLDER|TABLE|SHARDS",
    help="As for fovea-train fit: <class>/*.jpg, perhaps in train/, val/ and test/; a .csv or .parquet; or "
    "WebDataset shards.",
)
@_data("--skip-broken", is_flag=True, help="Leave out files that can't be decoded.")
@_data(
    "--workers", type=click.IntRange(0), help="Processes that load images.  [default: one a core; digits 0]"
)
@_backbone("--arch", metavar="NAME", help=ARCH_HELP)
@_backbone("--pretrained", is_flag=True, default=None, help="With the weights published for it.")
@_backbone(
    "--pretrained-version",
    metavar="VERSION",
    help="Of --pretrained, where several are published, such as v1 or v2.  [default: the best]",
)
@_backbone(
    "--init-weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With these weights of the same architecture, .pth or .safetensors.",
)
@_backbone(
    "--run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The network of a run of fovea-train fit instead, with its preprocessing.",
)
@_backbone(
    "--pooling",
    type=click.Choice(["avg", "gem"]),
    help="Of the feature maps; gem with its power as it starts, 3.  [default: avg]",
)
@_backbone(
    "--input-size",
    type=click.IntRange(8, 4096),
    metavar="PIXELS",
    help="Side of the network's square input.  [default: the architecture's]",
)
@_backbone(
    "--resize-size",
    type=click.IntRange(8, 8192),
    metavar="PIXELS",
    help="The short side is brought to this first.  [default: the architecture's]",
)
@_backbone("--interpolation", type=click.Choice(list(INTERPOLATIONS)), help="[default: the architecture's]")
@_backbone("--jpeg-scaled-decode", is_flag=True, default=None, help=SCALED_DECODE_HELP)
@_backbone(
    "--mean",
    callback=channels,
    metavar="R,G,B",
    help="Of pixels from 0 to 1.  [default: the architecture's]",
)
@_backbone("--std", callback=channels, metavar="R,G,B", help="As --mean.")
@_head(
    "--views",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Of each training image: as served, mirrored, then random parts. Each costs one more pass of the "
    "network, once.",
)
@_head("--class-weights", is_flag=True, help="Let rare classes count more.")
@_head(
    "--feature-cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where features are kept for the next probe of the same backbone; safe to delete.  "
    "[default: ~/.cache/fovea/features]",
)
@_run("--seed", type=click.IntRange(0), default=0, show_default=True)
@_run("--threads", type=click.IntRange(1), help="Of PyTorch, on the CPU.  [default: one a core; digits 1]")
@_run("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_run(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The run's folder.  [default: runs/<data>-<arch>-probe-<time>]",
)
@told
def probe_command(run: Path | None, views: int, feature_cache: Path | None, **options: Any) -> None:
    """Train a head in seconds on a frozen network: a linear probe.

    Runs the backbone once on each image and keeps its features on disk, so that the next probe, with more
    images or other labels, starts from them. The head is a logistic regression, its weight decay chosen on
    val. Leaves a run like fovea-train fit's: backbone and head are one model, to evaluate and to export.

    \b
    fovea-train probe --data photos/ --arch efficientnet-lite0 --pretrained
    fovea-train export
    """
    if run is not None:
        for name in _OF_RUNS:
            if options[name] is not None:
                raise SettingError(f"--{name.replace('_', '-')} isn't for --run, whose own is taken")
    elif options["arch"] is None:
        raise SettingError("the backbone's --arch is missing; expected that, or --run")
    from training.options import FitOptions
    from training.probe import ProbeOptions, probe
    from training.run_folder import shown_score

    stated = {name: value for name, value in options.items() if value is not None}
    command = shlex.join(["fovea-train", *sys.argv[1:]])
    summary = probe(
        ProbeOptions(FitOptions(**stated, command=command), run, views, feature_cache), click.echo
    )
    click.echo(
        f"val {shown_score(summary.selects_by, summary.val)}\n"
        f"test {shown_score(summary.selects_by, summary.test)} on {summary.test_images:,} images, "
        f"after {summary.seconds:.1f} s\n"
        f"the run is in {summary.run}\n"
        f"next: fovea-train export --run {shlex.quote(summary.run)}"
    )
