"""A split's features from a frozen network: from the cache where it has them, else computed and kept."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from service.preprocess import Preprocessing
from training.content import content_digest
from training.data import Batches
from training.embeddings import embed
from training.feature_cache import FeatureCache
from training.models import Classifier
from training.normalization import Normalization
from training.progress import Bar, track
from training.run_temperature import weights_digest
from training.splits import Split
from training.views import View

# So many are lost by a kill, at most.
_IMAGES_PER_FILE = 2048
# Cached vectors that are computed again, to see whether this code still gives them.
_SAMPLES = 8
# Far above what another batch, processor or number of threads changes; far below what another network does.
_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network, and how pictures come to it.

    Attributes:
        model: on the CPU.
        described: what its weights alone don't say: architecture, pooling.
        preprocessing: the service's.
        mean, std: per RGB channel, of pixels scaled to 0..1.
    """

    model: Classifier
    described: str
    preprocessing: Preprocessing
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def made_by(self, view: View) -> dict[str, object]:
        """All that a feature depends on, but the picture."""
        heads = (self.model.head_name, *self.model.auxiliary_head_names)
        weights = {
            name: value
            for name, value in self.model.state_dict().items()
            if not name.startswith(tuple(f"{head}." for head in heads))
        }
        return {
            "backbone": self.described,
            "weights": weights_digest(weights),
            "preprocessing": asdict(self.preprocessing),
            "mean": list(self.mean),
            "std": list(self.std),
            "view": view.described,
            # Another version may resize otherwise.
            "pillow": version("pillow"),
        }


def features(
    backbone: Backbone,
    split: Split,
    digests: Sequence[bytes],
    view: View,
    *,
    cache: Path,
    device: torch.device,
    workers: int,
    batch_size: int,
    say: Callable[[str], None],
    title: str,
) -> Tensor:
    """The pooled features of every picture of a split.

    Some of what the cache has is computed again, and where it differs the cache is emptied: what made it
    was another program, whatever its name.

    Args:
        backbone: the network.
        split: the pictures.
        digests: of their content, in the same order.
        view: of each picture.
        cache: the folder of all caches.
        device: to compute on.
        workers: processes that load pictures.
        batch_size: pictures at a time.
        say: told of a cache that is of no use.
        title: of the progress bar.

    Returns:
        Float32 [pictures, embedding_dimension], on the CPU.

    Raises:
        SettingError: the cache's folder can't be written to.
        RunError: the features can't be written.
        OSError, service.errors.InvalidImage: a picture can't be read.
    """
    kept = FeatureCache(cache, backbone.made_by(view), backbone.model.embedding_dimension)
    if kept.damaged:
        say(f"left out {len(kept.damaged)} damaged files of features in {kept.folder}")

    def compute(indices: Sequence[int], advance: Callable[[int], None]) -> Tensor:
        some = split.subset(indices)
        batches = Batches(some, view, batch_size, workers=workers if len(some) > batch_size else 0)
        try:
            normalization = Normalization(backbone.mean, backbone.std).to(device)
            vectors, _ = embed(backbone.model.to(device), normalization, batches, device, advance)
        finally:
            batches.close()
            backbone.model.cpu()
        return vectors

    known = [index for index, digest in enumerate(digests) if digest in kept]
    samples = known[:: max(1, len(known) // _SAMPLES)][:_SAMPLES]
    if samples:
        before, now = (
            kept.vectors([digests[index] for index in samples]),
            compute(samples, lambda _done: None),
        )
        if not bool((before - now).norm() <= _TOLERANCE * now.norm()):
            say(f"the features in {kept.folder} aren't what this network gives any more; they are made anew")
            kept.clear()
    # Of copies the first.
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    missing = [index for index, digest in enumerate(digests) if digest not in kept and first[digest] == index]
    with Bar(len(missing), title) as bar:
        for start in range(0, len(missing), _IMAGES_PER_FILE):
            some = missing[start : start + _IMAGES_PER_FILE]
            kept.add([digests[index] for index in some], compute(some, bar.advance))
    return kept.vectors(digests)


def content_digests(split: Split, title: str) -> list[bytes]:
    """The digest of every picture's content, in order.

    Raises:
        OSError, service.errors.InvalidImage: a picture can't be read.
    """
    return [content_digest(split, index) for index in track(range(len(split)), len(split), title)]
