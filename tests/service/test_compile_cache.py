"""Where compiled models are kept."""

from pathlib import Path

import pytest

from service.compile_cache import compile_cache
from service.errors import ConfigError

DIGEST = "0123456789abcdef" * 4


def test_a_folder_is_made_for_each_provider_precision_and_file(tmp_path: Path) -> None:
    folder = compile_cache(str(tmp_path / "new"), "openvino", "bf16", DIGEST)
    assert folder == tmp_path / "new" / "openvino" / "bf16" / DIGEST[:32]
    assert folder is not None
    assert folder.is_dir()


def test_empty_is_none() -> None:
    assert compile_cache("", "openvino", "fp32", DIGEST) is None


@pytest.mark.parametrize("xdg", [True, False])
def test_auto_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xdg: bool) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg") if xdg else "")
    root = tmp_path / "xdg" if xdg else tmp_path / "home" / ".cache"
    assert (
        compile_cache("auto", "openvino", "fp32", DIGEST)
        == root / "fovea" / "openvino" / "fp32" / DIGEST[:32]
    )


def test_a_place_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"compile_cache is '.*file', which can't be written to"):
        compile_cache(str(file), "openvino", "fp32", DIGEST)
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert compile_cache("auto", "openvino", "fp32", DIGEST) is None  # nobody asked for it
