"""fovea-train report."""

from pathlib import Path

import click

from training.cli_options import one_of, run_option, told


@click.command("report")
@click.argument("run", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@run_option
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Of the run."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where the page goes.  [default: report/ in the run's folder]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="That the network is computed on.",
)
@told
def report_command(
    run: Path | None, named_run: Path | None, checkpoint: str, output: Path | None, device: str
) -> None:
    """Show how a run went and what it gets wrong, on one page.

    Scores RUN (without it the newest in runs/) on its own test images and leaves report.html, which needs no
    other file and no network, with metrics.json and predictions.csv beside it; and, in the run's folder, a
    model card, MODEL_CARD.md. For a package or a server: fovea-train evaluate --report.

    \b
    fovea-train report
    fovea-train report --run runs/photos-resnet18-20260102-030405 --output report/
    """
    from training.report.run_report import report_run
    from training.run_export import newest_run

    page, card = report_run(
        one_of("RUN", run, named_run) or newest_run(Path("runs")), checkpoint, output, device
    )
    click.echo(f"the report is {page}" + (f"\nthe model card is {card}" if card else ""))
