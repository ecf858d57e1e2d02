"""The whitening of a network's embeddings, from pictures to the fit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from service.errors import InvalidImage
from service.preprocess import Preprocessing
from training.data import Batches, default_workers
from training.embeddings import embed
from training.errors import ExportError
from training.image_files import find_images
from training.layout import ALL, parts_of
from training.models import Classifier
from training.normalization import Normalization
from training.parity_images import spread
from training.progress import Bar
from training.splits import Split
from training.transforms import EvalTransform
from training.whitening import Whitening, fit_whitening

# Some ten for each dimension of a ResNet-50's 2,048; more change little, and each costs a forward pass.
MAX_IMAGES = 20_000
_BATCH_SIZE = 32


def whiten(
    model: Classifier,
    split: Split,
    dimension: int,
    *,
    preprocessing: Preprocessing,
    mean: Sequence[float],
    std: Sequence[float],
    shown: bool = True,
) -> Whitening:
    """Fit `--whiten` on the embeddings of a split's pictures, as the service would see them.

    Args:
        model: comes back on the CPU, in evaluation mode.
        split: training images, and never those that are searched; at most `MAX_IMAGES` of them are used,
            evenly spread.
        dimension: what is kept.
        preprocessing, mean, std: the network's.
        shown: whether a progress bar is.

    Raises:
        SettingError: so many directions can't be had from these images.
        ExportError: an image can't be read.
    """
    chosen = spread(len(split), MAX_IMAGES)
    some = split.subset(chosen)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A single batch isn't worth processes, which a busy machine may be slow to start and to end.
    workers = default_workers(some) if len(some) > _BATCH_SIZE else 0
    batches = Batches(some, EvalTransform(preprocessing), min(_BATCH_SIZE, len(some)), workers=workers)
    try:
        with Bar(len(some), "whitening", shown=shown) as bar:
            features, _ = embed(
                model.to(device), Normalization(mean, std).to(device), batches, device, bar.advance
            )
    except (OSError, InvalidImage) as error:
        raise ExportError(f"an image to whiten by can't be read: {error}") from error
    finally:
        batches.close()
        model.cpu()
    return fit_whitening(features, dimension)


def whitening_images(folder: Path) -> Split:
    """The images of a folder, of its training part where it has parts; their labels are of no use.

    Raises:
        DataError: a folder can't be read.
        ExportError: there are none.
    """
    parts = parts_of(folder)
    paths = find_images(parts.get("train", parts.get(ALL, folder))).paths
    if not paths:
        raise ExportError(f"no images to whiten by in {folder}")
    return Split(paths, np.zeros(len(paths), np.int64))
