"""The images that calls carry: files as they are, or raw pixels made from them."""

from collections.abc import Sequence
from pathlib import Path

from service.cli.bench.payload import Payload, RawPixels, Size, size_bytes
from service.cli.image_files import SUFFIXES, image_files
from service.errors import InvalidImage
from service.image import decode
from service.preprocess import Preprocessing, preprocess


class NoPictures(ValueError):
    """There is nothing to send."""


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Every file of `paths`, and every image file under the folders among them, sorted within each.

    Raises:
        NoPictures: a path isn't there, or a folder has no image files.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = sorted(image_files(path))
            if not files:
                raise NoPictures(f"no image files under {path}; looked for {' '.join(sorted(SUFFIXES))}")
            found += files
        elif path.is_file():
            found.append(path)
        else:
            raise NoPictures(f"{path} is neither a file nor a folder")
    return found


def read_pictures(files: Sequence[Path], raw: Size | None, max_total_bytes: int) -> list[Payload]:
    """Read files, in order, as many as fit.

    Args:
        files: image files.
        raw: decode each and bring it to this size, cut from its centre; None: send the file's bytes.
        max_total_bytes: of memory that they may take; at least one is read whatever its size.

    Raises:
        NoPictures: a file can't be read, or (for raw pixels) decoded.
    """
    pictures: list[Payload] = []
    total = 0
    for file in files:
        try:
            data = file.read_bytes()
            picture: Payload = data if raw is None else _raw(data, raw)
        except OSError as error:
            raise NoPictures(f"{file} can't be read: {error.strerror or error}") from error
        except InvalidImage as error:
            raise NoPictures(f"{file}: {error}") from error
        total += size_bytes(picture)
        if pictures and total > max_total_bytes:
            break
        pictures.append(picture)
    return pictures


def _raw(data: bytes, size: Size) -> RawPixels:
    spec = Preprocessing(max(size.height, size.width), size.height, size.width)
    return RawPixels(preprocess(decode(data), spec).tobytes(), size)
