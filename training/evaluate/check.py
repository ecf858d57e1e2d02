"""Broken files, told before anything is scored, as `fit` does it."""

from dataclasses import replace

import numpy as np

from training.errors import BrokenImages, DataError
from training.evaluate.data import LabelledPictures
from training.image_check import Track, check_images, describe_broken, describe_left_out, untracked


def check_pictures(
    pictures: LabelledPictures, skip_broken: bool = False, track: Track = untracked
) -> LabelledPictures:
    """Decode every file once; the same pictures, or those that aren't broken.

    Args:
        pictures: files and members of archives; pixels in memory have nothing to check.
        skip_broken: leave out what is broken, and say so in `notes`, instead of refusing.
        track: shows the progress.

    Raises:
        BrokenImages: lists what can't be decoded, and archives that can't be read to their end.
        DataError: nothing else is left.
    """
    sources = pictures.split.sources
    if pictures.checked or isinstance(sources, np.ndarray):
        return pictures
    checked = check_images(sources, track)
    faults = [(pictures.name(index), each.fault) for index, each in enumerate(checked) if each.fault]
    broken = [*pictures.damaged, *faults]
    if not broken:
        return pictures
    if not skip_broken:
        raise BrokenImages(describe_broken(broken, pictures.source))
    kept = [index for index, each in enumerate(checked) if not each.fault]
    if not kept:
        raise DataError(f"{pictures.source}: no image is left; {describe_left_out(broken)}")
    return replace(
        pictures,
        split=pictures.split.subset(kept),
        names=tuple(pictures.names[index] for index in kept) if pictures.names else (),
        notes=(*pictures.notes, describe_left_out(broken)),
        left_out=tuple(broken),
        checked=True,
    )
