"""Act one: handwritten digits, recognised and found again by a network that was trained a moment ago."""

import io
from dataclasses import dataclass
from pathlib import Path

import fovea
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.contact_sheet import Match, Row, draw_contact_sheet
from demo.story import console, good, say
from training.data import digit_arrays

MODEL = "digits"
DATA, ARCHITECTURE = "digits", "resnet20-cifar"
NEIGHBORS = 5
_COLLECTION = "digits"
_ROWS = 16


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
    """What came back for the held-out images, in their order.

    Attributes:
        train, test: what was indexed, and what was held out.
        predictions: of `test`.
        neighbors: of each of `test` among `train`.
        accuracy: the share of `test` that was named right.
        precision: the share of neighbours that show the query's own digit.
    """

    train: Digits
    test: Digits
    predictions: list[fovea.Classification]
    neighbors: list[list[fovea.Neighbor]]

    @property
    def accuracy(self) -> float:
        right = [
            found.label == label for found, label in zip(self.predictions, self.test.labels, strict=True)
        ]
        return float(np.mean(right))

    @property
    def precision(self) -> float:
        hits = [
            self.train.labels[_position(neighbor)] == truth
            for found, truth in zip(self.neighbors, self.test.labels, strict=True)
            for neighbor in found
        ]
        return float(np.mean(hits))


def recognise(client: fovea.Client) -> Results:
    """Classify, embed, index and search through a server that has the model."""
    train, test = Digits.of("train"), Digits.of("test")
    say(f"5  Classify {len(test.files)} held-out digits, sent as PNG and JPEG")
    predictions = [good(found) for found in client.classify_stream(test.files, model=MODEL)]
    say(f"6  Embed them, and index the {len(train.files)} training images")
    vectors = [good(found).vector for found in client.embed_stream(test.files, model=MODEL)]
    client.create_collection(_COLLECTION, model=MODEL)
    items = [
        fovea.Item(f"train/{i}", image=file, attributes={"label": label})
        for i, (file, label) in enumerate(zip(train.files, train.labels, strict=True))
    ]
    for result in client.upsert(_COLLECTION, items):
        if result.error is not None:
            raise result.error
    console.print(
        f"   {len(vectors)} vectors of {len(vectors[0])} dimensions; "
        f"{client.count(_COLLECTION)} images indexed"
    )
    say("7  Search by image: which training images look most alike?")
    queries = [fovea.Query(image=file) for file in test.files]
    neighbors = [good(found) for found in client.search_batch(_COLLECTION, queries, top_k=NEIGHBORS)]
    return Results(train, test, predictions, neighbors)


def draw(results: Results, path: Path) -> None:
    """The first of each digit, then the mistakes, then the least certain, up to a full sheet."""
    train, test = results.train, results.test
    wrong = [i for i, found in enumerate(results.predictions) if found.label != test.labels[i]]
    firsts = [test.labels.index(str(digit)) for digit in range(10)]
    doubtful = sorted(range(len(test.labels)), key=lambda i: results.predictions[i].probability)
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
        for i in list(dict.fromkeys([*firsts, *wrong, *doubtful]))[:_ROWS]
    ]
    subtitle = (
        f"accuracy {results.accuracy:.1%}   ·   precision@{NEIGHBORS} {results.precision:.1%}   ·   left: a "
        "held-out scan and what the service calls it; right: its nearest training scans   ·   one of each "
        "digit, then the mistakes and the least certain"
    )
    draw_contact_sheet(rows, "Fovea on handwritten digits", subtitle, path)


def _position(neighbor: fovea.Neighbor) -> int:
    return int(neighbor.id.removeprefix("train/"))


def _encode(pixels: NDArray[np.uint8], file_format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **({"quality": 95} if file_format == "JPEG" else {}))
    return file.getvalue()
