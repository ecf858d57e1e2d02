"""Which files are film clips, and not images."""

import importlib.util
from pathlib import Path

import click

SUFFIXES = frozenset(
    {
        ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
        ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
_IMAGES = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CLIPS = (
    b"\x1a\x45\xdf\xa3",  # Matroska and WebM
    b"OggS",
    b"FLV\x01",
    b"\x30\x26\xb2\x75",  # ASF: WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1 and MPEG-2 video
)
# Of an ISO file (MP4, QuickTime) the kind of its first box; HEIC and AVIF images are such files too.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"moof", b"styp")
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
# A transport stream's packets of 188 bytes begin with it; in an M2TS file after four bytes of time each.
_SYNC, _TS_BYTES, _M2TS_BYTES = 0x47, 188, 192
_HEAD_BYTES = 2 * _M2TS_BYTES


def is_clip(path: Path) -> bool:
    """Whether a file is a film clip: by what it begins with, and where that says nothing by its suffix.

    Animated GIF and WebP files are images, as the server has them. What isn't a file, or can't be read,
    is no clip: whoever reads it as an image says why.
    """
    try:
        if not path.is_file():  # of a pipe nothing may be taken here
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    if head.startswith(_IMAGES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return False
    if head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS:
        return False
    return _begins_as_clip(head) or path.suffix.lower() in SUFFIXES


def _begins_as_clip(head: bytes) -> bool:
    return (
        head.startswith(_CLIPS)
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or head[4:8] in _BOXES
        or (len(head) > _TS_BYTES and head[0] == head[_TS_BYTES] == _SYNC)
        or (len(head) > _M2TS_BYTES + 4 and head[4] == head[_M2TS_BYTES + 4] == _SYNC)
    )


def check_pyav(path: Path) -> None:
    """Raises ClickException where PyAV, which reads clips, isn't installed; says what brings it."""
    if importlib.util.find_spec("av") is None:
        raise click.ClickException(
            f"{path} is a video, which needs PyAV, and that isn't installed: "
            "pip install 'fovea-serving[video]' brings it"
        )
