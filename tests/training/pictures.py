"""Folders of small pictures whose classes can be told apart."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from training.assembly import assemble
from training.folder import list_folder
from training.image_check import Track, untracked
from training.splits import Dataset

CLASSES = ("blue", "green", "red")


def picture(label: int, seed: int, width: int = 20, height: int = 16) -> Image.Image:
    """Noise in which one channel is bright: 0 blue, 1 green, 2 red."""
    pixels = np.random.default_rng(seed).integers(0, 120, (height, width, 3), dtype=np.uint8)
    pixels[:, :, 2 - label] += 120
    return Image.fromarray(pixels)


def write_class_folders(root: Path, count: int, seed: int = 0) -> Path:
    """`count` pictures of each class as root/<class>/<number>.png or .jpg."""
    for label, name in enumerate(CLASSES):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            suffix = ".jpg" if number % 3 == 0 else ".png"
            picture(label, seed + 1000 * label + number).save(folder / f"{number:03}{suffix}")
    return root


def draw(seed: int) -> random.Random:
    """A source of randomness for augmentation."""
    return random.Random(seed)


def read_folder(root: Path, skip_broken: bool = False, track: Track = untracked) -> Dataset:
    """A folder's data set, whatever its name."""
    return assemble(list_folder(root), skip_broken, track)
