"""Losses that learn distances between embeddings, from pytorch-metric-learning."""

from abc import abstractmethod
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners
from torch import Tensor, nn

from training.data import Batches
from training.errors import SettingError
from training.models import Classifier
from training.objective import Objective, Step
from training.retrieval import RETRIEVES_BY, retrieval

# Near enough to 1 to change no angle that matters, far enough for acos to have a gradient.
_LARGEST_COSINE = 1 - 1e-6


class MetricLearning(Objective):
    """A loss on unit-length embeddings, scored by how well they retrieve.

    Args:
        classes: that are trained on.
        embedding_dimension: the network's.
        settings: by name, all of `defaults`.

    Attributes:
        defaults: the settings there are, with the values of the loss's authors.
        images_per_class: how many images of each of its classes a batch should have at least (see
            `class_batches.py`); None where any batch will do.
    """

    selects_by = RETRIEVES_BY
    defaults: dict[str, float]
    images_per_class: int | None = None

    def __init__(self, classes: int, embedding_dimension: int, settings: dict[str, float]) -> None:
        super().__init__()
        self.loss: nn.Module = self.build(classes, embedding_dimension, settings)

    @abstractmethod
    def build(self, classes: int, embedding_dimension: int, settings: dict[str, float]) -> nn.Module:
        """Embeddings float32 [batch, dimension], int64 [batch] → loss; holds the proxies, if any."""

    def mined(self, embeddings: Tensor, labels: Tensor) -> Any:  # noqa: ARG002 - for those that choose
        """Which pairs or triplets count, as the library gives them; None for all."""
        return None

    def forward(self, model: Classifier, inputs: Tensor, targets: Tensor) -> Step:
        """As `Objective.forward`; makes no logits.

        Raises:
            SettingError: the targets are shares of classes.
        """
        if targets.is_floating_point():
            raise SettingError(
                "this loss wants one label an image; expected no mixup or cutmix, which mix labels, and a "
                "single-label data set"
            )
        features = model.features(inputs)
        # In float32 under autocast too. The library would cast the proxies themselves to bfloat16, for
        # good, and angles near 0 have none of its digits left.
        with torch.autocast(features.device.type, enabled=False):
            embeddings = nn.functional.normalize(features.float(), dim=1)
            loss: Tensor = self.loss(embeddings, targets, self.mined(embeddings, targets))
        return Step(loss, None)

    def validate(
        self, model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
    ) -> dict[str, float]:
        """Recall@1, @5 and @10 and mAP@R: each image of the split searches the others.

        There is no loss: the split's classes may have no proxies.
        """
        return retrieval(model, normalization, batches, device)


class ArcFace(MetricLearning):
    """Softmax over cosines to a centre per class, the own one's angle made `margin_degrees` wider.

    Deng et al. 2019 (arXiv:1801.07698): 0.5 rad, scale 64.
    """

    defaults = {"margin_degrees": 28.6, "scale": 64.0}  # noqa: RUF012 - never changed

    def build(self, classes: int, embedding_dimension: int, settings: dict[str, float]) -> nn.Module:
        """As `MetricLearning.build`."""
        return _ArcFaceLoss(
            num_classes=classes,
            embedding_size=embedding_dimension,
            margin=settings["margin_degrees"],
            scale=settings["scale"],
        )


class SubCenterArcFace(MetricLearning):
    """ArcFace with several centres a class, the nearest of which counts: for classes with noise or kinds.

    Deng et al., ECCV 2020, "Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces".
    """

    defaults = {"margin_degrees": 28.6, "scale": 64.0, "sub_centers": 3}  # noqa: RUF012 - never changed

    def build(self, classes: int, embedding_dimension: int, settings: dict[str, float]) -> nn.Module:
        """As `MetricLearning.build`."""
        return _SubCenterArcFaceLoss(
            num_classes=classes,
            embedding_size=embedding_dimension,
            margin=settings["margin_degrees"],
            scale=settings["scale"],
            sub_centers=int(settings["sub_centers"]),
        )


class ProxyAnchor(MetricLearning):
    """A proxy per class is the anchor, and pulls and pushes the batch (Kim et al. 2020, arXiv:2003.13911)."""

    defaults = {"margin": 0.1, "alpha": 32.0}  # noqa: RUF012 - never changed

    def build(self, classes: int, embedding_dimension: int, settings: dict[str, float]) -> nn.Module:
        """As `MetricLearning.build`."""
        return losses.ProxyAnchorLoss(  # type: ignore[no-any-return]  # the library has no types
            num_classes=classes,
            embedding_size=embedding_dimension,
            margin=settings["margin"],
            alpha=settings["alpha"],
        )


class MultiSimilarity(MetricLearning):
    """Pairs weighted by how they compare with others, the informative ones only.

    Wang et al. 2019 (arXiv:1904.06627): alpha 2, beta 50, epsilon 0.1. Their λ, `base` here, is 1 in the
    paper, and 0.5 in the code that they published and in the library.
    """

    defaults = {"alpha": 2.0, "beta": 50.0, "base": 0.5, "epsilon": 0.1}  # noqa: RUF012 - never changed
    images_per_class = 4

    def build(self, classes: int, embedding_dimension: int, settings: dict[str, float]) -> nn.Module:  # noqa: ARG002 - has no proxies
        """As `MetricLearning.build`."""
        self._miner = miners.MultiSimilarityMiner(epsilon=settings["epsilon"])
        return losses.MultiSimilarityLoss(  # type: ignore[no-any-return]  # the library has no types
            alpha=settings["alpha"], beta=settings["beta"], base=settings["base"]
        )

    def mined(self, embeddings: Tensor, labels: Tensor) -> Any:
        """Pairs that violate the order by `epsilon` (the paper's equations 4 and 5)."""
        return self._miner(embeddings, labels)


class Triplet(MetricLearning):
    """The other class's image is to be farther than the own class's by a margin, of squared distance.

    Schroff et al. 2015 (arXiv:1503.03832): margin 0.2, semi-hard negatives: those that are farther than
    the positive, but by less than the margin.
    """

    defaults = {"margin": 0.2}  # noqa: RUF012 - never changed
    images_per_class = 4

    def build(self, classes: int, embedding_dimension: int, settings: dict[str, float]) -> nn.Module:  # noqa: ARG002 - has no proxies
        """As `MetricLearning.build`."""
        squared = distances.LpDistance(p=2, power=2, normalize_embeddings=False)
        self._miner = miners.TripletMarginMiner(
            margin=settings["margin"], type_of_triplets="semihard", distance=squared
        )
        return losses.TripletMarginLoss(  # type: ignore[no-any-return]  # the library has no types
            margin=settings["margin"], distance=squared
        )

    def mined(self, embeddings: Tensor, labels: Tensor) -> Any:
        """The semi-hard triplets."""
        return self._miner(embeddings, labels)


class _FiniteAngles:
    """For ArcFace: at a cosine of 1 acos has an infinite gradient, which would ruin all weights at once."""

    def get_angles(self, cosine: Tensor) -> Tensor:
        """The library's, of cosines that are short of 1 by a hair."""
        angles: Tensor = super().get_angles(  # type: ignore[misc]  # of the loss beside it
            cosine.clamp(-_LARGEST_COSINE, _LARGEST_COSINE)
        )
        return angles


class _ArcFaceLoss(_FiniteAngles, losses.ArcFaceLoss):  # type: ignore[misc]  # the library has no types
    pass


class _SubCenterArcFaceLoss(_FiniteAngles, losses.SubCenterArcFaceLoss):  # type: ignore[misc]  # likewise
    pass


KINDS: dict[str, type[MetricLearning]] = {
    "arcface": ArcFace,
    "subcenter-arcface": SubCenterArcFace,
    "proxy-anchor": ProxyAnchor,
    "multi-similarity": MultiSimilarity,
    "triplet": Triplet,
}
