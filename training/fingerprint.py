"""What tells one data set from another, without reading all of its pictures again."""

import hashlib
import os
from pathlib import Path

import numpy as np

from training.content import content_digest
from training.source import Source
from training.splits import Dataset, Split

# Of each split: tens of milliseconds, and a picture that was replaced by one of the same size is found
# unless the data set is large.
_FILES_READ = 256


def fingerprint(dataset: Dataset) -> str:
    """SHA-256, hexadecimal, of the classes and of each picture's name, size in bytes and labels, in order.

    Of pictures in memory the pixels count, and of files the content of up to 256 a split, evenly spread.
    Names count from the folder that all pictures have in common, so a data set may move.

    Raises:
        OSError: a file can't be read.
        service.errors.InvalidImage: a file is no regular one any more.
    """
    digest = hashlib.sha256(repr((dataset.task, dataset.classes)).encode())
    splits = (dataset.train, dataset.val, dataset.test)
    folders = {str(_file(source).parent) for split in splits for source in _sources(split)}
    root = os.path.commonpath(folders) if folders else ""
    for split in splits:
        digest.update(f"{len(split)}\n".encode())
        digest.update(np.ascontiguousarray(split.labels).tobytes())
        if isinstance(split.sources, np.ndarray):
            digest.update(np.ascontiguousarray(split.sources).tobytes())
        sources = _sources(split)
        every = max(1, len(sources) // _FILES_READ)
        for index, source in enumerate(sources):
            size = source.stat().st_size if isinstance(source, Path) else source.size
            digest.update(f"{str(source)[len(root) :]} {size}\n".encode(errors="surrogateescape"))
            if index % every == 0:
                digest.update(content_digest(split, index))
    return digest.hexdigest()


def _sources(split: Split) -> list[Source]:
    return [] if isinstance(split.sources, np.ndarray) else list(split.sources)


def _file(source: Source) -> Path:
    return source if isinstance(source, Path) else source.shard
