"""Libraries are found where the loader looks, and in Python packages."""

import shutil
import sys
from pathlib import Path

import onnxruntime
import pytest

from service.engines.libraries import load_error, provider_error


def test_what_is_there_and_what_is_not() -> None:
    assert load_error("libc.so.6") == ""
    assert "libnothing.so.7" in load_error("libnothing.so.7")
    assert "libnothing.so.7" in load_error("libnothing.so.7", "no_such_package")


def test_a_package_may_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    target = tmp_path / "vendor_libraries" / "cu13" / "lib" / "libvendor.so.13"
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_error("libvendor.so.13")
    assert load_error("libvendor.so.13", "vendor_libraries") == ""
    sys.modules.pop("vendor_libraries", None)


def test_a_provider_that_does_not_exist_has_no_library() -> None:
    assert "libonnxruntime_providers_nothing.so" in provider_error("nothing")
