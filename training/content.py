"""What tells pictures apart, wherever they lie: a digest of their content."""

import hashlib

import numpy as np

from training.source import source_bytes
from training.splits import Split


def content_digest(split: Split, index: int) -> bytes:
    """SHA-256 of a picture's file, or, of a picture in memory, of its shape and pixels.

    Raises:
        OSError: the file can't be read.
        service.errors.InvalidImage: it is no regular file any more.
    """
    source = split.sources[index]
    if isinstance(source, np.ndarray):
        return hashlib.sha256(repr(source.shape).encode() + source.tobytes()).digest()
    return hashlib.sha256(source_bytes(source)).digest()
