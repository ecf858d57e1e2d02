"""The pictures on the page: what went wrong, why the network thought so, and what lies next to what."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidImage
from service.preprocess import preprocess
from training.evaluate.evaluation import Evaluation
from training.evaluate.run import RunTarget
from training.evaluate.target import Target
from training.probabilities import blocks, log_softmax, sigmoid
from training.report.gradcam import gradcam
from training.report.neighbours import Neighbours
from training.report.pictures import SIDE, overlaid, picture_uri

MAX_MISTAKES = 16
MAX_PAIRS = 6
PICTURES_A_PAIR = 4
MAX_QUERIES = 20
MAX_STRANGE = 8


@dataclass(frozen=True)
class Shown:
    """One picture on the page.

    Attributes:
        name: of the file.
        uri: the picture as the network saw it, or, where that isn't known, the whole.
        truth: its class, or classes.
        said: the class in question.
        probability: of that class.
        overlay: where the network saw that class; empty where that can't be known.
    """

    name: str
    uri: str
    truth: str
    said: str = ""
    probability: float = 0.0
    overlay: str = ""


@dataclass(frozen=True)
class Pair:
    """Two classes that are mixed up, with some of the pictures."""

    label: str
    predicted: str
    images: int
    pictures: list[Shown]


@dataclass(frozen=True)
class Neighbourhood:
    """A picture, and those next to it: (picture, cosine, whether it shares a class), nearest first."""

    picture: Shown
    near: list[tuple[Shown, float, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class _Doubt:
    """Row of the predictions, class in question, its probability."""

    row: int
    said: int
    probability: float


class Gallery:
    """Draws pictures of an evaluation.

    Args:
        found: the evaluation.
        target: who was asked; a run's network can be looked into.
    """

    def __init__(self, found: Evaluation, target: Target) -> None:
        self._found, self._target = found, target

    @property
    def has_overlays(self) -> bool:
        """Whether Grad-CAM can be had: it takes the network in PyTorch."""
        return isinstance(self._target, RunTarget) and self._found.predictions.logits is not None

    def mistakes(self) -> list[Shown]:
        """What was said with the most confidence and was wrong."""
        doubts = _wrong(self._found)
        doubts.sort(key=lambda doubt: -doubt.probability)
        return self._shown(doubts[:MAX_MISTAKES])

    def pairs(self) -> list[Pair]:
        """The classes mixed up most often, with the pictures that were taken for the other most surely."""
        found = self._found
        if found.targets.ndim == 2 or not found.confusions:
            return []
        doubts = _wrong(found)
        doubts.sort(key=lambda doubt: -doubt.probability)
        pairs = []
        # A single picture of a pair stands among the mistakes already.
        for confusion in [one for one in found.confusions if one.images > 1][:MAX_PAIRS]:
            mine = [
                doubt
                for doubt in doubts
                if found.labels[doubt.said] == confusion.predicted
                and found.labels[found.targets[doubt.row]] == confusion.label
            ]
            pictures = self._shown(mine[:PICTURES_A_PAIR])
            pairs.append(Pair(confusion.label, confusion.predicted, confusion.images, pictures))
        return pairs

    def neighbourhoods(self, near: Neighbours) -> list[Neighbourhood]:
        """Some whose nearest is of another class, nearest first; then some spread evenly over the data."""
        count = len(near.rows)
        if not near.rows.size:
            return []
        strange = [row for row in range(count) if not self._share_a_class(row, int(near.rows[row, 0]))]
        strange.sort(key=lambda row: -near.cosines[row, 0])
        spread = np.linspace(0, count - 1, min(MAX_QUERIES, count)).round().astype(int).tolist()
        chosen = list(dict.fromkeys([*strange[:MAX_STRANGE], *spread]))[:MAX_QUERIES]
        return [
            Neighbourhood(
                self._plain(int(row)),
                [
                    (self._plain(int(other)), float(cosine), self._share_a_class(int(row), int(other)))
                    for other, cosine in zip(near.rows[row], near.cosines[row], strict=True)
                ],
            )
            for row in chosen
        ]

    def _shown(self, doubts: Sequence[_Doubt]) -> list[Shown]:
        pixels = [self._pixels(doubt.row) for doubt in doubts]
        overlays = self._overlays(doubts, pixels)
        return [
            Shown(
                name=self._name(doubt.row),
                uri=picture_uri(picture),
                truth=self._truth(doubt.row),
                said=self._found.labels[doubt.said],
                probability=doubt.probability,
                overlay=overlay,
            )
            for doubt, picture, overlay in zip(doubts, pixels, overlays, strict=True)
        ]

    def _overlays(self, doubts: Sequence[_Doubt], pixels: Sequence[NDArray[np.uint8]]) -> list[str]:
        target = self._target
        if not isinstance(target, RunTarget) or not doubts:
            return [""] * len(doubts)
        heat = gradcam(
            target.model,
            target.normalization,
            np.stack(pixels),
            np.array([doubt.said for doubt in doubts], np.int64),
            target.device,
        )
        return [picture_uri(overlaid(picture, own)) for picture, own in zip(pixels, heat, strict=True)]

    def _plain(self, row: int) -> Shown:
        return Shown(self._name(row), picture_uri(self._pixels(row)), self._truth(row))

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        split = self._found.pictures.split
        index = int(self._found.predictions.indices[row])
        try:
            spec = self._target.preprocessing
            if spec is not None:
                return preprocess(split.picture(index, spec.least_short_side), spec)
            picture = split.picture(index, 2 * SIDE).image
            picture.thumbnail((2 * SIDE, 2 * SIDE))
            return np.asarray(picture)
        except (InvalidImage, OSError):
            # It was there when it was asked about; what matters now is the page.
            return np.full((SIDE, SIDE, 3), 128, np.uint8)

    def _name(self, row: int) -> str:
        return self._found.pictures.name(int(self._found.predictions.indices[row]))

    def _truth(self, row: int) -> str:
        target = self._found.targets[row]
        if self._found.targets.ndim == 1:
            return self._found.labels[int(target)]
        return ", ".join(self._found.labels[index] for index in np.flatnonzero(target)) or "none"

    def _share_a_class(self, row: int, other: int) -> bool:
        targets = self._found.targets
        if targets.ndim == 1:
            return bool(targets[row] == targets[other])
        return bool((targets[row] & targets[other]).any())


def _wrong(found: Evaluation) -> list[_Doubt]:
    """Of each picture that something wrong was said of, the surest of it."""
    logits, targets = found.predictions.logits, found.targets
    if logits is None:
        return []
    doubts: list[_Doubt] = []
    for rows in blocks(logits):
        if targets.ndim == 1:
            probabilities = np.exp(log_softmax(logits[rows], found.temperature))
            said = found.predicted[rows]
            wrong = np.flatnonzero(said != targets[rows])
        else:
            # Only classes that were said and don't hold can be looked for in a picture.
            probabilities = np.where(targets[rows] > 0, 0.0, sigmoid(logits[rows], found.temperature))
            said = probabilities.argmax(axis=1)
            wrong = np.flatnonzero(probabilities.max(axis=1) >= found.numbers["threshold"])
        doubts += [
            _Doubt(rows.start + int(row), int(said[row]), float(probabilities[row, said[row]]))
            for row in wrong
        ]
    return doubts
