"""What is on a clip: the mean of its frames' probabilities."""

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fovea import Classification, ClassScore, Client, FoveaError, ImageSource
from fovea.client import DEFAULT_MAX_MESSAGE_BYTES
from numpy.typing import NDArray

from service.cli.clips import Clip, Frame

# More than any model has: all of them.
_EVERY_CLASS = 2**32 - 1
# One frame a message, because the replies have every class; so many frames are in memory at a time.
_FRAMES_A_MESSAGE, _FRAMES_ON_THE_WAY = 1, 4
# What else is in a frame's message is much smaller than what this leaves.
_MOST_RAW_BYTES = DEFAULT_MAX_MESSAGE_BYTES - 64 * 1024
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Seen:
    """What is on one frame.

    Attributes:
        time_s: from the clip's first frame, in seconds.
        share: its weight in the mean, 0 to 1.
        label: of its best class.
        probability: of that.
    """

    time_s: float
    share: float
    label: str
    probability: float


@dataclass(frozen=True)
class ClipAnswer:
    """What is on a clip.

    Attributes:
        mean: classes by their mean probability over the frames, best first; without logits.
        frames: in order.
        notes: what of the clip couldn't be used.
    """

    mean: Classification
    frames: Sequence[Seen]
    notes: Sequence[str]


def classify_clip(
    client: Client, path: Path, frames: int, *, model: str | None, version: str | None, top_k: int
) -> ClipAnswer | FoveaError:
    """Classify frames of a clip, and take each class's mean probability over them.

    The frames are sent as raw pixels, so that nothing of them is lost. One that is too large for a message,
    above 5.5 million pixels, is sent as a JPEG of quality 95, its colours at full resolution.

    Args:
        client: of the server.
        path: of the clip.
        frames: how many at most, and which: see `Clip.frames`.
        model, version, top_k: as in `Client.classify`.

    Returns:
        The answer, or the error of the first frame that the server couldn't answer.

    Raises:
        InvalidImage: the clip can't be used.
    """
    clip = Clip(path)
    sent: list[tuple[float, int]] = []  # time and moments of each frame

    def images() -> Iterator[ImageSource]:
        for frame in clip.frames(frames):
            sent.append((frame.time_s, frame.moments))
            yield _sendable(frame)

    results = client.classify_stream(
        images(), model=model, version=version, top_k=_EVERY_CLASS,
        batch_size=_FRAMES_A_MESSAGE, window=_FRAMES_ON_THE_WAY,
    )  # fmt: skip
    answers: list[Classification] = []
    with closing(results):
        for result in results:
            if isinstance(result, FoveaError):
                return result
            answers.append(result)
    weights = [moments / sum(moments for _, moments in sent) for _, moments in sent]
    seen = [
        Seen(time_s, weight, answer.label, answer.probability)
        for (time_s, _), weight, answer in zip(sent, weights, answers, strict=True)
    ]
    return ClipAnswer(_mean(answers, weights, top_k), seen, list(clip.notes))


def _mean(answers: Sequence[Classification], weights: Sequence[float], top_k: int) -> Classification:
    """The best of the classes' mean probabilities; of equal ones the lower index comes first."""
    first = answers[0]
    labels = {score.index: score.label for score in first.classes}
    mean = np.zeros(len(labels))
    for answer, weight in zip(answers, weights, strict=True):
        for score in answer.classes:
            mean[score.index] += weight * score.probability
    best = np.argsort(-mean, kind="stable")[:top_k].tolist()
    classes = tuple(ClassScore(labels[index], index, float(mean[index])) for index in best)
    return Classification(classes, None, first.model, first.version)


def _sendable(frame: Frame) -> NDArray[np.uint8] | bytes:
    if frame.pixels.nbytes <= _MOST_RAW_BYTES:
        return frame.pixels
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame.pixels).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4")
    return file.getvalue()
