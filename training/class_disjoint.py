"""A data set whose val and test hold classes that training never sees: how retrieval is judged.

A network that only tells its training classes apart can look good on other images of them; what users
search for are things that nobody labelled (Musgrave et al. 2020, arXiv:2003.08505, section 2).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.content import content_digest
from training.errors import DataError, SettingError
from training.splits import SINGLE_LABEL, Dataset, Split, partition

# To retrieve, an image needs another one of its class in val, and one in test.
_LEAST_IMAGES = 4
_LEAST_CLASSES = 2


def hold_out(dataset: Dataset, holdout: int | Sequence[str]) -> Dataset:
    """Train on some classes, choose and report on the others.

    All different images of the held-out classes, from whatever split, are divided evenly between val and
    test by the SHA-256 of their content, so the same images always come into the same part, wherever
    they lie, and copies never stand in both. Train keeps its own images of the other classes.

    Args:
        dataset: single-label.
        holdout: how many classes to hold out, the last ones, as the field does with its data sets (of
            CUB-200 the last 100); or their names.

    Returns:
        A data set whose `classes` are those that are trained on, and behind them those held out; so the
        labels of train are below `trained_classes`, and those of val and test are not.

    Raises:
        SettingError: there are no such classes, or fewer than two are held out or left to train on.
        DataError: the data set is multi-label, or a held-out class has fewer than 4 images.
    """
    if dataset.task != SINGLE_LABEL:
        raise DataError(
            f"--holdout-classes wants one label an image; the images of {dataset.name} have several"
        )
    held = _named(dataset.classes, holdout)
    kept = [name for name in dataset.classes if name not in held]
    classes = (*kept, *held)
    order = {name: index for index, name in enumerate(classes)}
    places = np.array([order[name] for name in dataset.classes], np.int64)

    train, val, test = hold_out_last(
        [Split(split.sources, places[split.labels]) for split in (dataset.train, dataset.val, dataset.test)],
        classes,
        len(held),
    )
    return replace(
        dataset,
        classes=classes,
        train=train,
        val=val,
        test=test,
        rule=f"{dataset.rule}; of these, train keeps {len(kept)} classes, and all images of the other "
        f"{len(held)} ({', '.join(held)}) are val or test, half each, by the SHA-256 of their content",
    )


def hold_out_last(splits: Sequence[Split], classes: Sequence[str], count: int) -> tuple[Split, Split, Split]:
    """`hold_out` for splits whose held-out classes are the last ones already: a run's, found again.

    Args:
        splits: single-label train, val and test, as they were before.
        classes: by label.
        count: how many of them are held out.

    Returns:
        Train, val and test.

    Raises:
        DataError: a held-out class has fewer than 4 images.
        OSError, service.errors.InvalidImage: a file can't be read any more.
    """
    first = len(classes) - count
    strangers = _joined([split.subset(np.flatnonzero(split.labels >= first)) for split in splits])
    contents = [content_digest(strangers, index) for index in range(len(strangers))]
    _check_counts(strangers, contents, classes, first)
    val, test = partition(
        strangers.labels.tolist(),
        [content.hex() for content in contents],
        (0.5,),
        lambda label: classes[label],
        contents,
    )
    train = splits[0]
    return (
        train.subset(np.flatnonzero(train.labels < first)),
        strangers.subset(np.array(val)),
        strangers.subset(np.array(test)),
    )


def trained_classes(dataset: Dataset) -> int:
    """How many of the classes, from the first on, are trained on: all, but for held-out ones."""
    if dataset.task != SINGLE_LABEL or len(dataset.train) == 0:
        return len(dataset.classes)
    return int(dataset.train.labels.max()) + 1


def _named(classes: Sequence[str], holdout: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(holdout, int):
        _check_count(holdout, len(classes), f"is {holdout}")
        return tuple(classes[-holdout:])
    unknown = [name for name in holdout if name not in classes]
    if unknown:
        raise SettingError(
            f"--holdout-classes names {', '.join(map(repr, unknown))}; the classes are {', '.join(classes)}"
        )
    held = tuple(name for name in classes if name in holdout)
    _check_count(len(held), len(classes), f"names {len(held)}")
    return held


def _check_count(held: int, classes: int, told: str) -> None:
    if held < _LEAST_CLASSES or classes - held < _LEAST_CLASSES:
        raise SettingError(
            f"--holdout-classes {told} of {classes} classes; expected at least {_LEAST_CLASSES}, for among "
            f"images of one class every answer is right, and at least {_LEAST_CLASSES} left to train on"
        )


def _check_counts(split: Split, contents: Sequence[bytes], classes: Sequence[str], first: int) -> None:
    for label in range(first, len(classes)):
        different = len({contents[index] for index in np.flatnonzero(split.labels == label).tolist()})
        if different < _LEAST_IMAGES:
            raise DataError(
                f"held-out class {classes[label]!r} has {different} different image{'s' * (different != 1)}; "
                f"expected at least {_LEAST_IMAGES}, two each for val and test, one to find the other by"
            )


def _joined(splits: Sequence[Split]) -> Split:
    labels = np.concatenate([split.labels for split in splits])
    arrays = [split.sources for split in splits if isinstance(split.sources, np.ndarray)]
    if arrays:
        return Split(np.concatenate(arrays), labels)
    return Split([source for split in splits for source in split.sources], labels)
