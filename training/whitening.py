"""PCA-whitening of embeddings: decorrelated, each direction as strong as the others, then unit length again.

Jégou & Chum 2012, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
whitening" (ECCV), section 3: directions that vary a lot in all images (co-occurring features) drown what
tells images apart, and the vectors' mean, which most similarities are made of, says nothing.
"""

import torch
from torch import Tensor, nn

from training.errors import SettingError

# Rows that are turned to float64 at once: 64 MiB at 2,048 dimensions.
_BLOCK_ROWS = 4096
# Of the mean variance: a floor, so that a direction that never varied doesn't blow up rounding errors.
LEAST_SHRINKAGE = 1e-4
# Relative to the largest variance: below it a direction is rounding noise.
_NOISE = 1e-12


class Whitening(nn.Module):
    """(embedding - mean) · projection, of unit-length embeddings; unit length is taken again behind it.

    Args:
        mean: float [dimension].
        projection: float [dimension, whitened dimension].
        images: how many it was fitted on.
        shrinkage: what was used.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, mean: Tensor, projection: Tensor, images: int = 0, shrinkage: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("projection", projection.float())
        self.images, self.shrinkage = images, shrinkage

    @property
    def dimension(self) -> int:
        """Of what comes out."""
        return self.projection.shape[1]

    def described(self) -> str:
        """For the record."""
        return (
            f"embeddings PCA-whitened to {self.dimension} of {len(self.mean)} dimensions, fitted on "
            f"{self.images} training images, shrinkage {self.shrinkage:.3g}"
        )

    def forward(self, unit: Tensor) -> Tensor:
        """Float32 [batch, dimension], of unit length → float32 [batch, whitened dimension]."""
        # The mean first: it is most of the vector, and would cost the product its digits.
        return (unit - self.mean) @ self.projection


@torch.no_grad()
def fit_whitening(features: Tensor, dimension: int | None = None) -> Whitening:
    """Learn the whitening of embeddings.

    Covariance and its eigenvectors are float64, gathered by blocks. Variances are shrunk towards their mean
    by the share that Ledoit & Wolf 2004 ("A well-conditioned estimator for large-dimensional covariance
    matrices") find best for as many images, at least `LEAST_SHRINKAGE`: few images make small variances too
    small, and their inverse too large.

    Args:
        features: float [images, width], of any length: the network's, of training images only.
        dimension: directions to keep, those that vary the most; None for all.

    Raises:
        SettingError: `dimension` is below 1, or above what so many images of such features can show.
    """
    count, width = features.shape
    if dimension is not None and dimension < 1:
        raise SettingError(f"--whiten is {dimension}; expected a number of dimensions, at least 1")
    unit = nn.functional.normalize(features.float(), dim=1)
    if not torch.isfinite(unit).all():
        raise SettingError("an embedding to whiten by holds what isn't a number; expected finite ones")
    blocks = [unit[start : start + _BLOCK_ROWS] for start in range(0, count, _BLOCK_ROWS)]
    mean = torch.stack([block.double().sum(dim=0) for block in blocks]).sum(dim=0) / max(count, 1)
    covariance = torch.zeros(width, width, dtype=torch.float64, device=unit.device)
    fourth = torch.zeros((), dtype=torch.float64, device=unit.device)
    for block in blocks:
        centred = block.double() - mean
        covariance += centred.T @ centred
        fourth += centred.square().sum(dim=1).square().sum()
    covariance /= max(count, 1)
    variances, directions = torch.linalg.eigh(covariance)
    shown = int((variances > _NOISE * variances.max().clamp_min(_NOISE)).sum())
    kept = shown if dimension is None else dimension
    if kept > shown or shown == 0:
        raise SettingError(
            f"--whiten is {kept or width}; the {count} training images' embeddings of {width} dimensions "
            f"vary in {shown} directions, so expected from 1 to {shown}"
        )
    shrinkage = max(LEAST_SHRINKAGE, _ledoit_wolf(covariance, fourth / count, count))
    shrunk = (1 - shrinkage) * variances + shrinkage * variances.mean()
    # Ascending: the strongest are the last.
    strongest = range(width - 1, width - 1 - kept, -1)
    projection = directions[:, list(strongest)] / shrunk[list(strongest)].sqrt()
    return Whitening(mean, projection, count, shrinkage)


def _ledoit_wolf(covariance: Tensor, mean_fourth: Tensor, count: int) -> float:
    """The share of shrinkage that is expected to come nearest to the true covariance, from 0 to 1."""
    width = len(covariance)
    squared = covariance.square().sum()
    distance = squared / width - (covariance.trace() / width) ** 2
    if distance <= 0:
        return 0.0
    error = (mean_fourth - squared) / (count * width)
    return float((error / distance).clamp(0, 1))
