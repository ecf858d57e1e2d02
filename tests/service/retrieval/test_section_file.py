"""Files of sections: what is read is what was written, or it is refused."""

from pathlib import Path

import numpy as np
import pytest

from service.retrieval.section_file import BrokenFile, SectionReader, write_sections

NUMBERS = np.arange(1000, dtype=np.float32).reshape(10, 100)


def write(path: Path) -> None:
    write_sections(path, {"kind": "test", "rows": 10}, {"numbers": NUMBERS, "empty": b"", "text": b"abc\0d"})


def read(path: Path) -> tuple[dict[str, object], np.ndarray, bytes]:
    with path.open("rb", buffering=0) as file:
        reader = SectionReader(file)
        numbers = np.zeros_like(NUMBERS)
        reader.read_into("numbers", numbers)
        empty, text = reader.read("empty"), reader.read("text")
        reader.finish()
    assert empty == b""
    return reader.header, numbers, text


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    write(path)
    header, numbers, text = read(path)
    assert (header["kind"], header["rows"], text) == ("test", 10, b"abc\0d")
    np.testing.assert_array_equal(numbers, NUMBERS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_any_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    whole = path.read_bytes()
    for place in [*range(0, 150), *range(150, len(whole), 97), *range(len(whole) - 20, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(BrokenFile):
            read(path)
    for size in [*range(0, 200, 3), *range(200, len(whole), 331), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(BrokenFile):
            read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(BrokenFile, match="checksum"):
        read(path)


def test_sections_are_asked_for_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    with path.open("rb", buffering=0) as file:
        reader = SectionReader(file)
        with pytest.raises(BrokenFile, match="next section is numbers; expected text"):
            reader.read("text")
    with path.open("rb", buffering=0) as file:
        reader = SectionReader(file)
        with pytest.raises(BrokenFile, match="section numbers has 4,000 bytes; expected 8,000"):
            reader.read_into("numbers", np.zeros(1000))
    with path.open("rb", buffering=0) as file:
        reader = SectionReader(file)
        reader.read("numbers")
        with pytest.raises(BrokenFile, match="more sections: empty, text"):
            reader.finish()
