"""How well a network's embeddings retrieve a split."""

import torch
from torch import nn

from training.data import Batches
from training.embeddings import embed
from training.models import Classifier
from training.objective import CrossEntropy
from training.retrieval_metrics import retrieval_scores


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

    selects_by = "recall_at_1"

    def validate(
        self, model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
    ) -> dict[str, float]:
        """As `MetricLearning.validate`."""
        return retrieval(model, normalization, batches, device)
