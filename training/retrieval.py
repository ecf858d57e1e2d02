"""How well a network's embeddings retrieve a split."""

import numpy as np
import torch
from torch import nn

from training.data import Batches, Dataset
from training.embeddings import embed
from training.errors import DataError
from training.models import Classifier
from training.objective import CrossEntropy
from training.retrieval_metrics import retrieval_scores

RETRIEVES_BY = "recall_at_1"
"""What the best checkpoint is chosen by where embeddings are scored."""


def check_pairs(dataset: Dataset) -> None:
    """See whether val and test can be scored at all.

    Raises:
        DataError: no class of one of them has two images.
    """
    for part, split in (("val", dataset.val), ("test", dataset.test)):
        if np.bincount(split.labels, minlength=1).max() < 2:
            raise DataError(
                f"{dataset.name}: none of its {len(split)} {part} images has another one of its class, so "
                "retrieval can't be scored; expected classes of more images"
            )


def retrieval(
    model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
) -> dict[str, float]:
    """recall_at_1, recall_at_5, recall_at_10 and map_at_r of a split's embeddings.

    Raises:
        DataError: no class of the split has two images.
    """
    embeddings, labels = embed(model, normalization, batches, device)
    return retrieval_scores(embeddings.to(device), labels.to(device)).named()


class EmbeddingCrossEntropy(CrossEntropy):
    """Softmax cross-entropy, scored by retrieval: for classes that training doesn't know."""

    selects_by = RETRIEVES_BY

    def validate(
        self, model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
    ) -> dict[str, float]:
        """As `MetricLearning.validate`."""
        return retrieval(model, normalization, batches, device)
