"""Shared libraries that an execution provider needs, and what is said when they can't be loaded."""

import ctypes
import importlib.util
from pathlib import Path

import onnxruntime


def load_error(library: str | Path) -> str:
    """Why the loader can't load a library; empty if it can."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""


def provider_library(name: str) -> Path:
    """ONNX Runtime's own library of a provider: cuda, tensorrt."""
    return Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"


def preload_from_packages(package: str, pattern: str) -> None:
    """Load libraries that a Python package brought, where the loader's own path wouldn't find them."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in sorted(Path(folder).glob(pattern)):
            load_error(library)
