"""fovea-train fit."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from training.cli_fit_options import augmentation_options, data_options, learning_options, run_options
from training.cli_options import first_process, told
from training.cli_sections import SectionedCommand


@click.command("fit", cls=SectionedCommand)
@data_options
@learning_options
@run_options
@augmentation_options
@click.pass_context
@told
def fit_command(context: click.Context, resume: Path | None, **options: Any) -> None:
    """Train a classifier, or an embedding for retrieval.

    Leaves a folder with config.toml, metrics.jsonl (a line an epoch), checkpoints/best.pt and last.pt,
    events/ for TensorBoard, and summary.json. Ctrl-C leaves a run that --resume goes on with.

    \b
    fovea-train fit --data photos/ --arch efficientnet-lite0 --pretrained --recipe finetune
    torchrun --nproc-per-node 8 -m training fit --data imagenet/ --recipe imagenet-resnet50
    """
    if resume is None and options["data"] is None:
        raise click.UsageError("Missing option '--data' (or '--resume').")
    from training.options import FitOptions
    from training.run_folder import shown_score
    from training.train import fit
    from training.train import resume as go_on

    # What isn't stated is the data set's and the architecture's to say.
    stated = {name: value for name, value in options.items() if value is not None}
    if resume is not None:
        summary = go_on(resume, _given(context), _say)
    else:
        summary = fit(FitOptions(**stated, command=_command_line()), _say)
    if first_process():
        click.echo(
            f"best val {shown_score(summary.selects_by, summary.val)} "
            f"(epoch {summary.best_epoch} of {summary.epochs})\n"
            f"test {shown_score(summary.selects_by, summary.test)} on {summary.test_images:,} images, "
            f"after {summary.seconds:.0f} s\n"
            f"the run is in {summary.run}\n"
            f"next: fovea-train export --run {shlex.quote(summary.run)}"
        )


def _given(context: click.Context) -> Any:
    """The comparison of what was typed besides --resume with the run's configuration."""
    from training.config import RunConfig
    from training.given_options import check_given

    typed = {
        name: value
        for name, value in context.params.items()
        if name != "resume" and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }

    def check(config: RunConfig) -> None:
        check_given(typed, config)

    return check


def _say(line: str) -> None:
    click.echo(line)


def _command_line() -> str:
    return shlex.join(["fovea-train", *sys.argv[1:]])
