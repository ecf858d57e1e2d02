"""fovea-train find-lr and augmentations: looks at a run before it is made."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.cli_fit_options import augmentation_options, data_options, learning_options, run_options
from training.cli_options import told
from training.cli_sections import SectionedCommand, section

if TYPE_CHECKING:  # they need PyTorch, and --help doesn't
    from training.config import RunConfig
    from training.data import Dataset

_search, _sheet = section("Search"), section("Sheet")


@click.command("find-lr", cls=SectionedCommand)
@_search("--lowest", type=click.FloatRange(0, min_open=True), default=1e-6, show_default=True)
@_search("--highest", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True)
@_search("--steps", type=click.IntRange(20), default=100, show_default=True, help="Of the optimizer.")
@_search(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("learning-rate.png"),
    show_default=True,
    metavar="FILE.png",
    help="The plot; .svg and .pdf do too.",
)
@data_options
@learning_options.without("--learning-rate")
@run_options.only("--freeze", "--layer-decay")
@augmentation_options
@told
def find_rate_command(lowest: float, highest: float, steps: int, output: Path, **options: Any) -> None:
    """Find a learning rate: raise it until training fails, and see how far the loss falls."""
    from training.rate_finder import find_rate, write_plot

    _writable(output, ".png", ".svg", ".pdf")
    config, dataset = _planned(options)
    search = find_rate(config, dataset, lowest, highest, steps, click.echo)
    write_plot(search, output)
    click.echo(
        f"after {len(search.rates)} steps up to {search.rates[-1]:.3g} the loss was lowest at "
        f"{3 * search.suggestion:.2g}; the plot is {output}\n"
        f"next: fovea-train fit … --learning-rate {search.suggestion:.2g}"
    )


@click.command("augmentations", cls=SectionedCommand)
@_sheet("--images", type=click.IntRange(2, 64), default=8, show_default=True, help="A row.")
@_sheet(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("augmentations.png"),
    show_default=True,
    metavar="FILE.png",
)
@data_options.without(
    *("--workers", "--pretrained", "--pretrained-version", "--init-weights", "--dropout", "--pooling"),
    *("--projection", "--mean", "--std"),
)
@learning_options.only("--seed")
@augmentation_options
@told
def augmentations_command(images: int, output: Path, **options: Any) -> None:
    """Show what each augmentation does to images of the training split, as one picture."""
    from training.augment_sheet import augmentation_sheet, write_sheet

    _writable(output, ".png", ".jpg", ".webp")
    config, dataset = _planned(options)
    write_sheet(augmentation_sheet(config, dataset, images), output)
    click.echo(f"look at {shlex.quote(str(output))}")


def _planned(options: dict[str, Any]) -> "tuple[RunConfig, Dataset]":
    """The run that fit would make, and its data."""
    if options["data"] is None:
        raise click.UsageError("Missing option '--data'.")
    from training.options import FitOptions
    from training.train import planned

    stated = {name: value for name, value in options.items() if value is not None}
    return planned(FitOptions(**stated, trackers=()), click.echo)


def _writable(output: Path, *endings: str) -> None:
    if output.suffix.lower() not in endings:
        raise click.UsageError(f"--output is {output}; expected a name that ends in {' or '.join(endings)}")
    if not output.parent.is_dir():
        raise click.UsageError(f"--output is {output}; there is no folder {output.parent}")
