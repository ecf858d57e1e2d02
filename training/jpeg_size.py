"""How large a JPEG is, by its header: what decoding it at a part of its size is decided by."""

import io

from PIL import ExifTags, Image

# Orientations that lay the picture on its side.
_TURNED = range(5, 9)


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, upright.

    Args:
        content: of an image file.

    Returns:
        None for other formats, and where the header is broken, which the decoder explains better.
    """
    if not content.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as header:
            width, height = header.size
            turned = header.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception:  # noqa: BLE001 - a broken file makes Pillow raise anything
        return None
    return (height, width) if turned else (width, height)
