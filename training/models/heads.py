"""What turns a classifier's feature maps into an embedding: pooling, and a projection to fewer dimensions.

Unit length comes last: the objective takes it in training (`losses.py`), the exported graph when served
(`graph.py`), so that the whitening that export can fit between them sees what the network gives.
"""

from torch import Tensor, nn

from training.errors import SettingError
from training.models.classifier import Classifier, GlobalAverage

POOLINGS = ("avg", "gem")
# Radenović et al. 2018 start at 3, between the mean (1) and the maximum (infinity).
_INITIAL_POWER = 3.0


class GeM(nn.Module):
    """Generalised-mean pooling: (mean of x^p)^(1/p), p learned (Radenović et al. 2018, arXiv:1711.02512).

    Args:
        power: p to start with; 1 is the mean, and the larger it is, the more the strongest places count.
        epsilon: what is below it counts as it: the power of a negative number isn't real, and of zero
            its gradient isn't finite.
    """

    def __init__(self, power: float = _INITIAL_POWER, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(Tensor([power]))
        self.epsilon = epsilon

    def forward(self, maps: Tensor) -> Tensor:
        """[batch, channels, height, width] → float32 [batch, channels]."""
        # In float32 under autocast too: bfloat16's three digits don't survive a power and its root.
        powers = maps.float().clamp_min(self.epsilon).pow(self.power)
        return powers.mean(dim=(2, 3)).pow(1 / self.power)


class Projection(nn.Module):
    """A pooling, then a linear layer to `dimension`.

    The layer has no bias: it would add the same vector to every embedding, and move all cosines towards 1.
    No batch normalisation follows: the losses set the length to 1 anyway, and a batch of few classes (the
    pair losses' kind) would lend each image its mates' statistics.

    Args:
        pooling: feature maps → [batch, channels].
        channels: what the pooling gives.
        dimension: of the embedding.
    """

    def __init__(self, pooling: nn.Module, channels: int, dimension: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.linear = nn.Linear(channels, dimension, bias=False)
        # Orthogonal rows: distances between pooled features start as near to kept as they can be.
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch, dimension]."""
        embedding: Tensor = self.linear(self.pooling(maps))
        return embedding


def with_embedding(model: Classifier, pooling: str = "avg", projection: int | None = None) -> Classifier:
    """Give a network another pooling, a projection, or both; `embedding_dimension` follows.

    With a projection the head starts anew: its logits come from the projected embedding then. Load
    published weights before this, and a run's own weights behind it.

    Args:
        model: changed in place; with neither of the two it is left as it is.
        pooling: one of `POOLINGS`; 'avg' leaves the network its own.
        projection: dimensions of the embedding; None or 0 for the pooled features themselves.

    Returns:
        `model`.

    Raises:
        SettingError: the pooling isn't known or doesn't suit the network, or the projection isn't positive.
    """
    if pooling not in POOLINGS:
        raise SettingError(f"--pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
    if projection is not None and projection < 0:
        raise SettingError(f"--projection is {projection}; expected a number of dimensions, at least 1")
    if pooling == "gem":
        if not isinstance(model.pool, GlobalAverage):
            raise SettingError(
                f"--pooling is gem, which takes the place of a mean over the feature maps; "
                f"{type(model).__name__} ends in {type(model.pool).__name__} instead, so expected avg"
            )
        model.pool = GeM().to(next(model.parameters()).device)
    if projection:
        channels, classes = model.embedding_dimension, model.head.out_features
        model.pool = Projection(model.pool, channels, projection).to(next(model.parameters()).device)
        model.embedding_dimension = projection
        model.replace_head(classes)
    return model
