"""Batches with several images of each of their classes: what losses over pairs and triplets learn from."""

import numpy as np
from numpy.typing import NDArray

from training.errors import SettingError


def class_batches_order(
    labels: NDArray[np.int64], batch_size: int, images_per_class: int, seed: int, epoch: int
) -> list[int]:
    """The order of one epoch, so that each batch cut from it has groups of `images_per_class`.

    A class's images are shuffled and cut into groups. Each batch draws its groups from as many classes as
    it can, each class in proportion to what it has left. So an epoch shows every image about once: a class
    whose images don't divide into groups fills the last one up with images that it has shown, and the
    last groups are left out where only one class has any (a batch of one class has nothing to tell
    apart). Groups are contiguous: equal parts of a batch, as ranks take them, hold whole groups where
    `images_per_class` divides them. A class of fewer images repeats them.

    A pure function of its arguments: a run that is resumed goes on with the same order.

    Args:
        labels: int64 [count], the class of each image.
        batch_size: images a batch.
        images_per_class: the group's size, at least 2.
        seed, epoch: of the draw.

    Returns:
        Indices of images; batch i is those from i × batch_size on.

    Raises:
        SettingError: the batch doesn't hold whole groups of at least two, or there is only one class.
    """
    if images_per_class < 2 or batch_size % images_per_class or batch_size < 2 * images_per_class:
        raise SettingError(
            f"--batch-size is {batch_size} with {images_per_class} images per class; expected a multiple of "
            "them, at least twice as many, and at least 2 images per class"
        )
    random = np.random.default_rng((seed, epoch))
    groups = [
        _groups(random.permutation(np.flatnonzero(labels == label)), images_per_class, random)
        for label in np.unique(labels)
    ]
    if len(groups) < 2:
        raise SettingError("the training images are of one class; expected at least 2 to tell apart")
    per_batch = batch_size // images_per_class
    left = np.array([len(each) for each in groups])
    order: list[NDArray[np.int64]] = []
    while np.count_nonzero(left) > 1:
        missing = per_batch
        # More rounds than one only where there are fewer classes than groups in a batch.
        while missing and np.count_nonzero(left) > 0:
            chosen = random.choice(
                len(left), min(missing, int(np.count_nonzero(left))), replace=False, p=left / left.sum()
            )
            for label in chosen:
                left[label] -= 1
                order.append(groups[label][left[label]])
            missing -= len(chosen)
    indices: list[int] = np.concatenate(order).tolist()
    return indices


def _groups(members: NDArray[np.int64], size: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Shuffled members → [groups, size]; what the last group lacks is drawn from all."""
    lacking = -len(members) % size
    if lacking:
        others = members[: len(members) - (size - lacking)]
        # Of a class of fewer images than a group there are no others.
        source = others if len(others) else members
        members = np.concatenate([members, random.choice(source, lacking, replace=len(source) < lacking)])
    return members.reshape(-1, size)
