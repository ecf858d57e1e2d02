"""What is a clip, and what an image, by a file's first bytes and its suffix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.clip_files import is_clip
from tests.client.pictures import file_bytes, of_class

MP4 = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2mp41"
TS = (b"\x47" + bytes(187)) * 3


@pytest.mark.parametrize(
    ("name", "content", "clip"),
    [
        ("a.mp4", MP4, True),
        ("a.jpg", MP4, True),
        ("a", b"\0\0\0\x14ftypqt  ", True),
        ("a", b"\0\0\x10\0moov", True),
        ("a", b"\x1a\x45\xdf\xa3\x01\0\0\0", True),
        ("a", b"RIFF\x10\x20\0\0AVI LIST", True),
        ("a", b"OggS\0\x02", True),
        ("a", TS, True),
        ("a", b"\0\0\0\0" + (b"\x47" + bytes(191)) * 3, True),
        ("a.mp4", b"", True),  # said to be one: whoever reads it says what is wrong
        ("A.MOV", b"nothing known", True),
        ("a.mp4", file_bytes(of_class(0), "JPEG"), False),
        ("a.webm", file_bytes(of_class(0), "PNG"), False),
        ("a.gif", file_bytes(of_class(0), "GIF"), False),
        ("a.avi", file_bytes(of_class(0), "WEBP"), False),
        ("a.tiff", file_bytes(of_class(0), "TIFF"), False),
        ("a.bmp", file_bytes(of_class(0), "BMP"), False),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0", False),
        ("a.jpg", b"", False),
        ("a", b"\x47" + bytes(400), False),
    ],
)
def test_clips_are_told_from_images(tmp_path: Path, name: str, content: bytes, clip: bool) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert is_clip(path) is clip


def test_what_is_no_file_is_no_clip(tmp_path: Path) -> None:
    assert not is_clip(tmp_path / "absent.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert not is_clip(tmp_path / "folder.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for a writer
    assert not is_clip(tmp_path / "pipe.mp4")


def test_the_extra_is_named_before_a_server_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(MP4)
    program = "import sys; sys.modules['av'] = None; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "classify", "a.mp4", "--address", "127.0.0.1:1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "Error: a.mp4 is a video, which needs PyAV, and that isn't installed: "
        "pip install 'fovea-serving[video]' brings it\n"
    )
