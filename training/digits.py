"""The built-in data set: scikit-learn's 1,797 scans of handwritten digits, bundled with that package.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (CC BY 4.0).
"""

import numpy as np
from numpy.typing import NDArray

from training.splits import Dataset, Defaults, Split, partition

TEST_SHARE = 0.25
VAL_SHARE = 0.10
DIGITS_RULE = (
    "a quarter of each class is test, a tenth val, the rest train, by the SHA-256 of 'digits/<index>'"
)


def digits() -> Dataset:
    """The digits with fixed, stratified splits: the same on every machine.

    Returns:
        Pictures of uint8 [8, 8, 3], white on black; labels '0' to '9'; about 1,170 train, 180 val
        and 450 test.
    """
    # Needed by this data set only, and slow to import.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The scans count ink from 0 to 16.
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    keys = [f"digits/{index}" for index in range(len(labels))]
    test, val, train = partition(labels.tolist(), keys, (TEST_SHARE, VAL_SHARE), str)
    return Dataset(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        train=Split(images[train], labels[train]),
        val=Split(images[val], labels[val]),
        test=Split(images[test], labels[test]),
        rule=DIGITS_RULE,
        # Mirroring costs a point: a mirrored 2 is no 2. Mean and std are the training split's.
        defaults=Defaults(
            input_size=16,
            mean=(0.305, 0.305, 0.305),
            std=(0.376, 0.376, 0.376),
            epochs=20,
            batch_size=32,
            learning_rate=0.05,
            mirror=False,
            # Steps this small gain little from a second thread, and lose far more where another process
            # wants that core: 1,800 images/s fell to 40, those of one thread from 1,150 to 1,000.
            threads=1,
        ),
    )


def digit_arrays(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The digits of one split as plain arrays, in a fixed order.

    Args:
        split: 'train', 'val' or 'test'.

    Returns:
        uint8 [count, 8, 8, 3] RGB and int64 [count].
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split is {split!r}; expected 'train', 'val' or 'test'")
    part: Split = getattr(digits(), split)
    return np.asarray(part.sources, dtype=np.uint8), part.labels.astype(np.int64)
