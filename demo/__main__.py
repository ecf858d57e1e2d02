"""Train → export → serve → classify, embed, index, search; then a picture and the figures."""

import argparse
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import fovea
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.markup import escape

from demo.contact_sheet import Match, Row, draw_contact_sheet
from demo.running_server import NotStarted, running_server
from training.data import digit_arrays

HERE = Path(__file__).resolve().parent
COLLECTION = "digits"
NEIGHBORS = 5
ROWS = 16

T = TypeVar("T")
console = Console(highlight=False)


@dataclass(frozen=True)
class Digits:
    """One split: its images as files' bytes and as pixels, and their labels."""

    files: list[bytes]
    pixels: NDArray[np.uint8]
    labels: list[str]

    @classmethod
    def of(cls, split: str) -> "Digits":
        """Every second image becomes a JPEG, the others PNG."""
        pixels, labels = digit_arrays(split)
        files = [_encode(image, "JPEG" if i % 2 else "PNG") for i, image in enumerate(pixels)]
        return cls(files, pixels, [str(label) for label in labels])


@dataclass(frozen=True)
class Results:
    """What came back for the held-out images, in their order."""

    predictions: list[fovea.Classification]
    neighbors: list[list[fovea.Neighbor]]


def main() -> None:
    """Read the command line and tell the story."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for what it makes")
    tell(parser.parse_args().output.resolve())


def tell(output: Path) -> None:
    """Go through every step; leave the work, the picture and the figures in `output`."""
    # So that a `kill` of the demo also ends its server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.perf_counter()
    work, contact_sheet = output / "work", output / "contact_sheet.png"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    _say("1  Train a ResNet-20 on scanned digits; a quarter of them is held out")
    run = work / "run"
    _fovea_train("fit", "--data", "digits", "--arch", "resnet20-cifar", "--output", str(run))

    _say("2  Export it to ONNX; ONNX Runtime must agree with PyTorch")
    models = work / "models"
    _fovea_train("export", "--run", str(run), "--model-repository", str(models), "--name", "digits")
    package = models / "digits" / "1"

    _say("3  Serve it over gRPC")
    train, test = Digits.of("train"), Digits.of("test")
    with running_server(models, work / "index", work / "server.log") as server:
        console.print(f"   gRPC at {server.address}, metrics at {server.metrics_url}")
        with fovea.Client(server.address) as client:
            results = _use(client, train, test)

    correct = [found.label == label for found, label in zip(results.predictions, test.labels, strict=True)]
    accuracy = float(np.mean(correct))
    precision = _precision(results.neighbors, test.labels, train.labels)
    _draw(
        results,
        train,
        test,
        contact_sheet,
        f"accuracy {accuracy:.1%}   ·   precision@{NEIGHBORS} {precision:.1%}",
    )
    summary = {
        "accuracy": accuracy,
        f"precision_at_{NEIGHBORS}": precision,
        "contact_sheet": str(contact_sheet),
        "model_package": str(package),
        "held_out_images": len(test.labels),
        "indexed_images": len(train.labels),
        "metrics_url": server.metrics_url,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")

    _say("Done")
    console.print(
        f"   accuracy through the service   [bold]{accuracy:.2%}[/] of {len(test.labels)} held-out images"
    )
    console.print(f"   precision@{NEIGHBORS} of the retrieval   [bold]{precision:.2%}[/]")
    console.print(f"   metrics were at                {server.metrics_url}")
    console.print(f"   contact sheet                  {contact_sheet}")
    console.print(f"   model package                  {package}")
    console.print(
        f"   took {summary['seconds']} s; the server has ended. `make serve` serves this model again."
    )


def _use(client: fovea.Client, train: Digits, test: Digits) -> Results:
    _say(f"4  Classify {len(test.files)} held-out images, sent as PNG and JPEG")
    predictions = [_good(found) for found in client.classify_stream(test.files)]
    _say(f"5  Embed them, and index the {len(train.files)} training images")
    vectors = [_good(found).vector for found in client.embed_stream(test.files)]
    client.create_collection(COLLECTION)
    items = [
        fovea.Item(f"train/{i}", image=file, attributes={"label": label})
        for i, (file, label) in enumerate(zip(train.files, train.labels, strict=True))
    ]
    for result in client.upsert(COLLECTION, items):
        if result.error is not None:
            raise result.error
    console.print(
        f"   {len(vectors)} vectors of {len(vectors[0])} dimensions; "
        f"{client.count(COLLECTION)} images indexed"
    )
    _say("6  Search by image: which training images look most alike?")
    queries = [fovea.Query(image=file) for file in test.files]
    neighbors = [_good(found) for found in client.search_batch(COLLECTION, queries, top_k=NEIGHBORS)]
    return Results(predictions, neighbors)


def _good(result: T | fovea.FoveaError) -> T:
    if isinstance(result, fovea.FoveaError):
        raise result
    return result


def _precision(neighbors: list[list[fovea.Neighbor]], truths: list[str], labels: list[str]) -> float:
    """The share of neighbours that show the query's own digit."""
    hits = [
        labels[_position(neighbor)] == truth
        for found, truth in zip(neighbors, truths, strict=True)
        for neighbor in found
    ]
    return float(np.mean(hits))


def _draw(results: Results, train: Digits, test: Digits, path: Path, figures: str) -> None:
    wrong = [i for i, found in enumerate(results.predictions) if found.label != test.labels[i]]
    # The first of each digit, then the mistakes, then the least certain, up to a full sheet.
    firsts = [test.labels.index(str(digit)) for digit in range(10)]
    doubtful = sorted(range(len(test.labels)), key=lambda i: results.predictions[i].probability)
    chosen = list(dict.fromkeys([*firsts, *wrong, *doubtful]))[:ROWS]
    rows = [
        Row(
            test.pixels[i],
            test.labels[i],
            results.predictions[i].label,
            results.predictions[i].probability,
            [
                Match(train.pixels[_position(near)], train.labels[_position(near)], near.score)
                for near in results.neighbors[i]
            ],
        )
        for i in chosen
    ]
    subtitle = (
        f"{figures}   ·   left: a held-out scan and what the service calls it; right: its nearest training "
        "scans   ·   one of each digit, then the mistakes and the least certain"
    )
    draw_contact_sheet(rows, "Fovea on handwritten digits", subtitle, path)


def _position(neighbor: fovea.Neighbor) -> int:
    return int(neighbor.id.removeprefix("train/"))


def _encode(pixels: NDArray[np.uint8], file_format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **({"quality": 95} if file_format == "JPEG" else {}))
    return file.getvalue()


def _fovea_train(*arguments: str) -> None:
    console.print(f"   [dim]$ {escape(shlex.join(['fovea-train', *arguments]))}[/]", soft_wrap=True)
    subprocess.run([sys.executable, "-m", "training", *arguments], check=True)


def _say(step: str) -> None:
    console.print(f"\n[bold cyan]{step}[/]")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # it has said why itself
    except NotStarted as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # as shells have it: 128 and the number of SIGINT
