"""Does ONNX Runtime compute, from the exported file, what PyTorch computes from the network?"""

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
    model: Classifier, normalization: Normalization, file: Path, images: NDArray[np.uint8]
) -> Agreement:
    """Run both on the same images, the file at each of `BATCH_SIZES`; the worst of each number.

    Args:
        model: on the CPU, in evaluation mode.
        normalization: what goes before it.
        file: the exported graph.
        images: uint8 [count, height, width, 3], at least one.
    """
    reference = _pytorch(model, normalization, images)
    return reduce(
        Agreement.worse, (agreement(reference, cpu_outputs(file, images, size)) for size in BATCH_SIZES)
    )


@torch.inference_mode()
def _pytorch(model: Classifier, normalization: Normalization, images: NDArray[np.uint8]) -> Outputs:
    logits, embeddings = [], []
    for start in range(0, len(images), max(BATCH_SIZES)):
        pixels = normalization(torch.from_numpy(images[start : start + max(BATCH_SIZES)].copy()))
        logits.append(model(pixels).numpy())
        pooled = model.features(pixels).numpy()
        length = np.linalg.norm(pooled.astype(np.float64), axis=1, keepdims=True)
        embeddings.append((pooled / np.maximum(length, 1e-12)).astype(np.float32))
    return np.concatenate(logits), np.concatenate(embeddings)
