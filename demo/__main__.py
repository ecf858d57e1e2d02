"""Train → export → serve → classify, embed, index, search; then the pictures and the figures."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fovea
from rich.markup import escape

from demo import digits, kept, photos
from demo.running_server import NotStarted, running_server
from demo.story import console, fovea_train, say

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Read the command line and tell the story."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for what it makes")
    parser.add_argument(
        "--photos", type=Path, help="folder of your photographs (default: scikit-learn's two)"
    )
    options = parser.parse_args()
    # Before the minute that everything else takes.
    tell(options.output.resolve(), photos.photographs(options.photos))


def tell(output: Path, paths: list[Path]) -> None:
    """Go through every step; leave the work, the pictures and the figures in `output`."""
    # So that a `kill` of the demo also ends its server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.perf_counter()
    work, contact_sheet, photo_sheet = output / "work", output / "contact_sheet.png", output / "photos.png"
    # The collections are made anew each time.
    shutil.rmtree(work / "index", ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    models = work / "models"
    make_models(work / "run", models)

    say("4  Serve both over gRPC")
    with running_server(models, photos.MODEL, work / "index", work / "server.log") as server:
        console.print(f"   gRPC at {server.address}, metrics at {server.metrics_url}")
        with fovea.Client(server.address) as client:
            results = digits.recognise(client)
            seen = photos.look_at(client, paths)

    digits.draw(results, contact_sheet)
    photos.draw(seen, photo_sheet)
    summary = {
        "accuracy": results.accuracy,
        f"precision_at_{digits.NEIGHBORS}": results.precision,
        "contact_sheet": str(contact_sheet),
        "photo_sheet": str(photo_sheet),
        "photos": {each.path.name: each.found.label for each in seen},
        "model_package": str(models / digits.MODEL / "1"),
        "held_out_images": len(results.test.labels),
        "indexed_images": len(results.train.labels),
        "metrics_url": server.metrics_url,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")

    say("Done")
    for what, value in (
        (
            "accuracy through the service",
            f"[bold]{results.accuracy:.2%}[/] of {len(results.test.labels)} digits",
        ),
        (f"precision@{digits.NEIGHBORS} of the retrieval", f"[bold]{results.precision:.2%}[/]"),
        ("metrics were at", server.metrics_url),
        ("contact sheet of the digits", str(contact_sheet)),
        ("and of the photographs", str(photo_sheet)),
        ("model packages", str(models)),
    ):
        console.print(f"   {what:31}{value}", soft_wrap=True)
    console.print(
        f"   took {summary['seconds']} s; the server has ended. `make serve` serves both models again; "
        "`make demo PHOTOS=folder` looks at photographs of yours, without training again; "
        "`make clean-demo` forgets what was trained."
    )


def make_models(run: Path, models: Path) -> None:
    """Train and export what no earlier demo has left whole.

    Raises:
        subprocess.CalledProcessError: a command failed, and has said why.
    """
    into = ("--model-repository", str(models))
    say("1  Train a ResNet-20 on scanned digits; a quarter of them is held out")
    if kept.run_is_whole(run, digits.DATA, digits.ARCHITECTURE):
        _say_kept(run)
    else:
        _remove(run)
        _remove(models / digits.MODEL)  # of the run before
        fovea_train("fit", "--data", digits.DATA, "--arch", digits.ARCHITECTURE, "--output", str(run))

    say("2  Export it to ONNX; ONNX Runtime must agree with PyTorch")
    _export(models / digits.MODEL, "--run", str(run), *into, "--name", digits.MODEL)

    say("3  Beside it a network that knows 1,000 kinds of things, with its published weights")
    _export(models / photos.MODEL, "--arch", photos.MODEL, "--pretrained", *into)


def _export(model: Path, *arguments: str) -> None:
    if kept.package_is_whole(model / "1"):
        _say_kept(model / "1")
    else:
        _remove(model)
        fovea_train("export", *arguments)


def _remove(folder: Path) -> None:
    """What can't be removed is told by the command that finds it in its way."""
    shutil.rmtree(folder, ignore_errors=True)


def _say_kept(folder: Path) -> None:
    console.print(f"   kept of an earlier demo: {escape(str(folder))}", soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # it has said why itself
    except (NotStarted, photos.NoPhotos) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # as shells have it: 128 and the number of SIGINT
