"""Does ONNX Runtime compute, from the exported file, what PyTorch computes from the network?"""

from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.agreement import Agreement, agreement
from training.errors import ParityError
from training.models import Classifier
from training.normalization import Normalization
from training.runtime import Outputs, cpu_outputs
from training.whitening import Whitening

MAX_RELATIVE_ERROR = 1e-4
MIN_TOP1_AGREEMENT = 1.0
MIN_EMBEDDING_COSINE = 0.9999
# One alone, and sizes that are and aren't powers of two.
BATCH_SIZES = (1, 3, 8)


def check(measured: Agreement) -> None:
    """Raises ParityError, with the numbers, where the fp32 file's agreement with PyTorch isn't enough."""
    # Written so that nan fails.
    if not (
        measured.max_relative_error <= MAX_RELATIVE_ERROR
        and (measured.top1_agreement is None or measured.top1_agreement >= MIN_TOP1_AGREEMENT)
        and measured.embedding_cosine >= MIN_EMBEDDING_COSINE
    ):
        raise ParityError(
            f"ONNX Runtime doesn't agree with PyTorch: {described(measured)}; nothing was published"
        )


def described(measured: Agreement) -> str:
    """The numbers, each with its limit."""
    top1 = (
        ""
        if measured.top1_agreement is None
        else f"same top-1 {measured.top1_agreement:.2%} (at least {MIN_TOP1_AGREEMENT:.0%}), "
    )
    return (
        f"max|Δ| ÷ max|reference| {measured.max_relative_error:.2g} (at most {MAX_RELATIVE_ERROR:.0e}), "
        f"{top1}embedding cosine {measured.embedding_cosine:.6f} (at least {MIN_EMBEDDING_COSINE}), on "
        f"{measured.images} images"
    )


def compare(
    model: Classifier,
    normalization: Normalization,
    file: Path,
    images: NDArray[np.uint8],
    *,
    whitening: Whitening | None = None,
    classes: bool = True,
    multi_label: bool = False,
) -> Agreement:
    """Run both on the same images, the file at each of `BATCH_SIZES`; the worst of each number.

    The relative error is that of the logits or that of the embeddings, whichever is worse.

    Args:
        model: on the CPU, in evaluation mode.
        normalization: what goes before it.
        file: the exported graph.
        images: uint8 [count, height, width, 3], at least one.
        whitening: of the embeddings; None for none.
        classes: whether the file has logits.
        multi_label: whether its classes may hold together.
    """
    reference = _pytorch(model, normalization, images, whitening, classes)
    outputs = (cpu_outputs(file, images, size) for size in BATCH_SIZES)
    return reduce(Agreement.worse, (_measured(reference, each, multi_label) for each in outputs))


def _measured(reference: Outputs, outputs: Outputs, multi_label: bool) -> Agreement:
    (none, expected), (_, embeddings) = (reference[0][:, :0], reference[1]), outputs
    of_embeddings = agreement((none, expected), (none, embeddings))
    whole = agreement(reference, outputs, multi_label=multi_label)
    # numpy's max carries nan along, the built-in one loses it.
    worst = np.maximum(whole.max_relative_error, of_embeddings.max_relative_error)
    return replace(whole, max_relative_error=float(worst))


@torch.inference_mode()
def _pytorch(
    model: Classifier,
    normalization: Normalization,
    images: NDArray[np.uint8],
    whitening: Whitening | None,
    classes: bool,
) -> Outputs:
    logits, embeddings = [], []
    for start in range(0, len(images), max(BATCH_SIZES)):
        pixels = normalization(torch.from_numpy(images[start : start + max(BATCH_SIZES)].copy()))
        logits.append(model(pixels).numpy() if classes else np.empty((len(pixels), 0), np.float32))
        vectors = _unit(model.features(pixels).numpy().astype(np.float64))
        if whitening is not None:
            mean, projection = (part.numpy().astype(np.float64) for part in whitening.buffers())
            vectors = _unit((vectors - mean) @ projection)
        embeddings.append(vectors.astype(np.float32))
    return np.concatenate(logits), np.concatenate(embeddings)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
