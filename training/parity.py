"""Does ONNX Runtime compute, from the exported file, what PyTorch computes from the network?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import ExportError, ParityError
from training.graph import EMBEDDING, INPUT, LOGITS
from training.models import Classifier
from training.normalization import Normalization

MAX_RELATIVE_ERROR = 1e-4
MIN_TOP1_AGREEMENT = 1.0
MIN_EMBEDDING_COSINE = 0.9999
# One alone, and sizes that are and aren't powers of two.
BATCH_SIZES = (1, 3, 8)
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Agreement:
    """How far two engines agree, the worst over all batch sizes.

    Attributes:
        images: how many were compared.
        top1_agreement: share of images with the same highest logit.
        max_relative_error: max|Δlogits| ÷ max|reference logits|.
        embedding_cosine: mean over the images.
    """

    images: int
    top1_agreement: float
    max_relative_error: float
    embedding_cosine: float

    def check(self) -> None:
        """Raises ParityError, with the numbers, where a limit isn't kept."""
        # Written so that nan fails.
        if not (
            self.max_relative_error <= MAX_RELATIVE_ERROR
            and self.top1_agreement >= MIN_TOP1_AGREEMENT
            and self.embedding_cosine >= MIN_EMBEDDING_COSINE
        ):
            raise ParityError(f"ONNX Runtime doesn't agree with PyTorch: {self}; nothing was published")

    def __str__(self) -> str:
        return (
            f"max|Δ| ÷ max|reference| {self.max_relative_error:.2g} (at most {MAX_RELATIVE_ERROR:.0e}), "
            f"same top-1 {self.top1_agreement:.2%} (at least {MIN_TOP1_AGREEMENT:.0%}), embedding cosine "
            f"{self.embedding_cosine:.6f} (at least {MIN_EMBEDDING_COSINE}), on {self.images} images"
        )


Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


def compare(
    model: Classifier, normalization: Normalization, file: Path, images: NDArray[np.uint8]
) -> Agreement:
    """Run both on the same images, the file at each of `BATCH_SIZES`.

    Args:
        model: on the CPU, in evaluation mode.
        normalization: what goes before it.
        file: the exported graph.
        images: uint8 [count, height, width, 3], at least one.
    """
    logits, embeddings = _pytorch(model, normalization, images)
    relative_error, top1, cosine = 0.0, 1.0, 1.0
    for batch_size in BATCH_SIZES:
        their_logits, their_embeddings = _onnxruntime(file, images, batch_size)
        # Infinite logits give nan here, which fails the check.
        with np.errstate(invalid="ignore"):
            difference = np.abs(their_logits - logits).max() / max(np.abs(logits).max(), _TINY)
        # np.maximum and np.minimum carry nan along, the built-in ones lose it.
        relative_error = float(np.maximum(relative_error, difference))
        top1 = min(top1, float(np.mean(their_logits.argmax(1) == logits.argmax(1))))
        cosine = float(np.minimum(cosine, _mean_cosine(their_embeddings, embeddings)))
    return Agreement(len(images), top1, relative_error, cosine)


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


def _onnxruntime(file: Path, images: NDArray[np.uint8], batch_size: int) -> Outputs:
    try:
        import onnxruntime
    except ImportError:
        raise ExportError(
            "ONNX Runtime isn't installed, so the package can't be checked; "
            "install fovea-serving[serve] or fovea-serving[serve-cpu] beside fovea-serving[train]"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    parts = [
        session.run([LOGITS, EMBEDDING], {INPUT: images[start : start + batch_size]})
        for start in range(0, len(images), batch_size)
    ]
    logits, embeddings = zip(*parts, strict=True)
    return np.concatenate(logits), np.concatenate(embeddings)


def _mean_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Of unit-length or zero rows; two zero rows agree."""
    cosines = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    return float(np.where(both_zero, 1.0, cosines).mean())
