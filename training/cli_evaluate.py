"""fovea-train evaluate."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.cli_options import one_of, run_option, told
from training.errors import RunError, SettingError

if TYPE_CHECKING:  # what needs PyTorch is imported inside, so that --help doesn't
    from training.evaluate.data import LabelledPictures
    from training.evaluate.target import Target

# As `training.evaluate` has them, which imports PyTorch; a test holds the two equal.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
PARTS = ("auto", "test", "val", "train", "all")


@click.command("evaluate")
@click.argument("target", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@run_option
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Ask the server there instead of a TARGET in this process; wants --data.",
)
@click.option("--model", metavar="NAME", help="Of the server.  [default: the server's]")
@click.option("--version", metavar="NUMBER", help="Of --model.  [default: the loaded one]")
@click.option(
    "--data",
    metavar="DATA",
    help="What to score on: anything that fit takes, or a run's folder for that run's own images. Classes "
    "are matched by name.  [default: the run's test images]",
)
@click.option(
    "--split",
    type=click.Choice(PARTS),
    default="auto",
    show_default=True,
    help="Which part of the data; auto is test, else val, and everything where the data come in one part.",
)
@click.option("--checkpoint", type=click.Choice(["best", "last"]), help="Of a run.  [default: best]")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Which file of a package.  [default: fp32, or the one that the model was imported in]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Of several labels an image: the probability from which a class counts as said.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="That a run's network is computed on.",
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True)
@click.option(
    "--ten-crop",
    is_flag=True,
    help="Ask about the four corners and the centre of each resized image, and about the five mirrored: "
    "probabilities and embeddings are means over the ten (Krizhevsky et al. 2012), for ten times the work. "
    "It can help where what counts stands off the middle, as on photographs; not where a mirrored image is "
    "another class or none, as on digits and text. Where the model resizes straight to its input, so that "
    "there is no margin, images are resized to that ÷ 0.875 instead.",
)
@click.option("--skip-broken", is_flag=True, help="Leave out files that can't be decoded.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Write every number there.",
)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Leave a page with pictures there, report.html, with metrics.json and predictions.csv beside it.",
)
@told
def evaluate_command(**options: Any) -> None:
    """Score a run, a model package or a running server on labelled images.

    TARGET is the folder of a run of fovea-train fit or of a package, <repository>/<model>/<version>; without
    it, and without --address, the newest run in runs/. The same network gives the same numbers in all three.
    Files that can't be decoded are listed before anything is scored, and are an error without --skip-broken.

    \b
    fovea-train evaluate
    fovea-train evaluate --ten-crop
    fovea-train evaluate models/photos-resnet18/1 --data runs/photos-resnet18-20260102-030405
    fovea-train evaluate --address 127.0.0.1:50051 --model photos-resnet18 --data photos/ --report report/
    """
    from training.evaluate.check import check_pictures
    from training.evaluate.console import show
    from training.evaluate.data import matched
    from training.evaluate.evaluation import evaluate
    from training.progress import Bar, track

    if options["output"]:
        _make_folder(options["output"].parent)
    with ExitStack() as stack:
        target = _target(options, stack)
        pictures = _pictures(options, target)
        # Classes that don't fit are told before every file is decoded.
        matched(pictures, target.labels, target.task)
        progress = partial(track, title="checking images")
        pictures = check_pictures(pictures, options["skip_broken"], progress)
        for note in pictures.notes:
            click.echo(note)
        with Bar(len(pictures.split), "evaluating") as bar:
            found = evaluate(target, pictures, bar.advance, options["threshold"], options["ten_crop"])
        show(found)
        if options["output"]:
            _write(options["output"], found.document())
        if options["report"]:
            from training.report.write import write_report

            page = write_report(options["report"], found, target)
            click.echo(f"the report is {page}")


def _target(options: dict[str, Any], stack: ExitStack) -> "Target":
    folder = one_of("TARGET", options["target"], options["named_run"])
    if options["address"] is not None:
        _refuse(options, ("checkpoint", "precision"), "is for a run or a package, not for --address")
        if folder is not None:
            raise SettingError(f"both {folder} and --address are given; expected one of them")
        if options["data"] is None:
            raise SettingError("--address needs --data too: the images to ask about")
        from training.evaluate.server import ServerTarget

        return stack.enter_context(ServerTarget(options["address"], options["model"], options["version"]))
    _refuse(options, ("model", "version"), "is for --address")
    if folder is None:
        from training.run_export import newest_run

        folder = newest_run(Path("runs"))
    if (folder / "config.toml").is_file():
        _refuse(options, ("precision",), "is for a package, not for a run")
        from training.evaluate.run import RunTarget

        return RunTarget(folder, options["checkpoint"] or "best", options["device"], options["batch_size"])
    if (folder / "manifest.json").is_file():
        _refuse(options, ("checkpoint",), "is for a run, not for a package")
        if options["data"] is None:
            raise SettingError(
                f"{folder} is a package, without images; --data is needed too, such as the run's folder"
            )
        from training.evaluate.package import PackageTarget

        return PackageTarget(folder, options["precision"], options["batch_size"])
    raise RunError(
        f"{folder} has neither config.toml nor manifest.json; expected a run of fovea-train fit, or "
        "a package: <repository>/<model>/<version>"
    )


def _pictures(options: dict[str, Any], target: "Target") -> "LabelledPictures":
    from training.evaluate.data import open_pictures, run_pictures
    from training.evaluate.run import RunTarget

    data: str | None = options["data"]
    if isinstance(target, RunTarget) and (data is None or _same(data, target.loaded.config.data.source)):
        # The images that the run learned from aren't among these.
        return run_pictures(target.run_folder, options["split"])
    if data is None:
        raise SettingError("--data is needed: the images to ask about")
    return open_pictures(data, options["split"], options["skip_broken"])


def _same(data: str, source: str) -> bool:
    return data == source or (source != "digits" and Path(data).resolve() == Path(source).resolve())


def _refuse(options: dict[str, Any], names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if options[name] is not None:
            raise SettingError(f"--{name} {reason}")


def _write(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingError(f"--output {path} can't be written: {error.strerror}") from error
    click.echo(f"the numbers are in {path}")


def _make_folder(folder: Path) -> None:
    """Before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"--output: {folder} can't be made: {error.strerror}") from error
