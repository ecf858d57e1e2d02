"""Shared libraries that an execution provider needs, and what is said when they can't be loaded."""

import ctypes
import importlib.util
from pathlib import Path

import onnxruntime


def load_error(name: str, package: str = "") -> str:
    """Load a library; why that can't be done, or empty.

    Once loaded it is found by its name, also by ONNX Runtime.

    Args:
        name: with its version: libcudart.so.13.
        package: of Python, where it may lie if the loader's own path hasn't got it.
    """
    try:
        ctypes.CDLL(name)
    except OSError as error:
        reason = str(error)
    else:
        return ""
    spec = importlib.util.find_spec(package) if package else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in sorted(Path(folder).rglob(name)):
            if not load_error(str(library)):
                return ""
    return reason


def provider_error(name: str) -> str:
    """Why ONNX Runtime's own library of a provider can't be loaded, after it didn't do so itself.

    Never before: it takes what it needs from ONNX Runtime at the moment when it is loaded.
    """
    return load_error(str(Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"))
