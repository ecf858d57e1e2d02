"""Sizes by headers."""

import io

import pytest
from PIL import Image

from tests.training.pictures import picture
from training.jpeg_size import jpeg_size


def encoded(kind: str, orientation: int | None = None) -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    picture(0, 0, width=30, height=20).save(stream, kind, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", [None, *range(1, 9), 77])
def test_a_jpegs_size_is_that_of_the_upright_picture(orientation: int | None) -> None:
    turned = orientation in (5, 6, 7, 8)
    assert jpeg_size(encoded("JPEG", orientation)) == ((20, 30) if turned else (30, 20))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", encoded("PNG"), encoded("WEBP"), encoded("JPEG")[:40]])
def test_what_else_there_is_has_none(content: bytes) -> None:
    assert jpeg_size(content) is None
