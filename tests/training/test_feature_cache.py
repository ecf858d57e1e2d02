"""Vectors on disk: found again only where nothing that they depend on has changed, whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from training.errors import RunError, SettingError
from training.feature_cache import FeatureCache, default_cache

MADE_BY = {"weights": "abc", "view": "evaluation"}
DIGESTS = [bytes([value]) * 32 for value in range(6)]
VECTORS = torch.arange(24, dtype=torch.float32).reshape(6, 4)


def cache(root: Path, **changes: Any) -> FeatureCache:
    return FeatureCache(root, MADE_BY | changes, 4)


def test_vectors_are_found_again_in_any_order(tmp_path: Path) -> None:
    first = cache(tmp_path)
    first.add(DIGESTS[:4], VECTORS[:4])
    first.add(DIGESTS[4:], VECTORS[4:])
    again = cache(tmp_path)
    assert len(again) == 6
    assert DIGESTS[5] in again
    order = [5, 0, 3, 3, 1]
    assert torch.equal(again.vectors([DIGESTS[index] for index in order]), VECTORS[order])
    assert again.vectors([]).shape == (0, 4)
    with pytest.raises(KeyError):
        again.vectors([bytes(range(32))])


def test_another_network_or_view_finds_nothing(tmp_path: Path) -> None:
    cache(tmp_path).add(DIGESTS, VECTORS)
    for changes in ({"weights": "abd"}, {"view": "mirrored"}, {"pillow": "12"}):
        assert len(cache(tmp_path, **changes)) == 0
    assert len(FeatureCache(tmp_path, MADE_BY, 5)) == 0
    described = json.loads((cache(tmp_path).folder / "description.json").read_text())
    assert described == {"format": 1, "dimension": 4, **MADE_BY}


@pytest.mark.parametrize("damage", ["cut", "turned", "empty", "foreign"])
def test_a_damaged_file_is_left_out(tmp_path: Path, damage: str) -> None:
    kept = cache(tmp_path)
    kept.add(DIGESTS[:3], VECTORS[:3])
    kept.add(DIGESTS[3:], VECTORS[3:])
    path = next(path for path in kept.folder.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-7]
    elif damage == "turned":
        content[-3] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(b"something else altogether")
    path.write_bytes(bytes(content))
    again = cache(tmp_path)
    assert again.damaged == [path]
    assert len(again) == 3
    assert not path.exists()
    assert cache(tmp_path).damaged == []


def test_a_kill_leaves_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache(tmp_path)
    kept.add(DIGESTS[:3], VECTORS[:3])

    def stopped(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        kept.add(DIGESTS[3:], VECTORS[3:])
    monkeypatch.undo()
    assert len(list(kept.folder.glob("*.safetensors"))) == 1
    assert len(cache(tmp_path)) == 3


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="features can't be written: No space left on device"):
        kept.add(DIGESTS, VECTORS)
    assert len(kept) == 0


def test_clearing_forgets_everything(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    kept.add(DIGESTS, VECTORS)
    kept.clear()
    assert len(kept) == len(cache(tmp_path)) == 0
    kept.add(DIGESTS[:2], VECTORS[2:4])
    assert torch.equal(cache(tmp_path).vectors(DIGESTS[:2]), VECTORS[2:4])


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"--feature-cache is .*file, which can't be written to"):
        cache(tmp_path / "file")


def test_the_usual_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "fovea" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "fovea" / "features"
