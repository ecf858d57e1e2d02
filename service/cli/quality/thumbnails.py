"""Small pictures of files, for pages and sheets."""

import base64
import io
from pathlib import Path

from PIL import Image

from service.cli.bulk.entry import TarMember, Unusable, content_of
from service.errors import InvalidImage
from service.image import decode_picture

_QUALITY = 80


def thumbnail(place: Path | TarMember | None, side: int) -> Image.Image | None:
    """RGB, at most `side` pixels wide and high; None where there is no picture.

    Small ones are enlarged by whole multiples, which keep their pixels square.
    """
    if place is None:
        return None
    try:
        picture = decode_picture(content_of(place), least_short_side=side).image
    except (Unusable, InvalidImage):
        return None
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    elif (factor := side // longest) > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    return picture


def data_uri(picture: Image.Image) -> str:
    """As JPEG inside a page, which then needs no other file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
