"""An image as the caller gives it → its message."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fovea.errors import InvalidImage
from fovea.types import ImageSource
from fovea.v1 import image_pb2

T = TypeVar("T")


def to_message(image: ImageSource, max_bytes: int) -> image_pb2.Image:
    """Read an image, if it is a path, and wrap it.

    Args:
        image: a path, a file's bytes, or uint8 RGB [height, width, 3].
        max_bytes: the largest that fits into a request.

    Raises:
        InvalidImage: it has more bytes than that.
        OSError: the file can't be read.
        TypeError: it is none of the three, or an array of another dtype.
        ValueError: an array of another shape.
    """
    if isinstance(image, np.ndarray):
        return _from_pixels(image, max_bytes)
    if isinstance(image, bytes | bytearray | memoryview):
        _check_size("the image", memoryview(image).nbytes, max_bytes)
        return image_pb2.Image(encoded=bytes(image))
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        _check_size(str(path), path.stat().st_size, max_bytes)
        return image_pb2.Image(encoded=path.read_bytes())
    raise TypeError(
        "an image is a path, a file's bytes or a numpy uint8 array [height, width, 3]; "
        f"got {type(image).__name__}"
    )


def unreadable(image: object, error: OSError) -> InvalidImage:
    """The error of one image among several whose file can't be read."""
    invalid = InvalidImage(f"{image} can't be read: {error.strerror or error}")
    invalid.__cause__ = error
    return invalid


def several(images: T) -> T:
    """The same images.

    Raises:
        TypeError: one image was given where several are expected; a path or bytes would otherwise be
            taken apart into letters, and an array into its rows.
    """
    one = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview)
    if one or (isinstance(images, np.ndarray) and images.ndim == 3) or not _iterable(images):
        raise TypeError(f"expected several images, for instance a list; got one {type(images).__name__}")
    return images


def _iterable(value: object) -> bool:
    return isinstance(value, Iterable) or hasattr(value, "__aiter__")


def _from_pixels(pixels: NDArray[np.uint8], max_bytes: int) -> image_pb2.Image:
    if pixels.dtype != np.uint8:
        raise TypeError(f"a raw image is uint8; got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"a raw image has shape [height, width, 3]; got {list(pixels.shape)}")
    _check_size("the raw image", pixels.nbytes, max_bytes)
    height, width = pixels.shape[:2]
    raw = image_pb2.RawImage(data=pixels.tobytes(), height=height, width=width)
    return image_pb2.Image(raw=raw)


def _check_size(what: str, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise InvalidImage(
            f"{what} has {size_bytes:,} bytes; at most {max_bytes:,} fit into a message "
            "(see max_message_bytes)"
        )
