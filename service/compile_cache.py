"""The folder where OpenVINO and TensorRT keep what they compiled, so that a restart is fast."""

import os
from pathlib import Path

import structlog

from service.errors import ConfigError

log = structlog.get_logger()

# Half of a sha256: enough, and the paths stay short.
_DIGEST_LENGTH = 32


def compile_cache(setting: str, provider: str, precision: str, digest: str) -> Path | None:
    """A folder in the cache, made if missing.

    Args:
        setting: "auto" for fovea in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache), a folder,
            or "" for none.
        provider: each has a folder of its own,
        precision: and each of its precisions: OpenVINO gives the same file of one model the same name for
            all of them,
        digest: and each file, by its sha256: TensorRT names its engines, which hold the weights, by the
            graph alone, so that a model would run with those of its older version.

    Returns:
        The folder; None if there shall be none, or if "auto" finds no place that can be written to.

    Raises:
        ConfigError: the folder that was named can't be made or written to.
    """
    if not setting:
        return None
    try:
        root = _user_cache() if setting == "auto" else Path(setting)
        folder = root / provider / precision / digest[:_DIGEST_LENGTH]
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied", str(folder))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        if setting != "auto":
            raise ConfigError(f"compile_cache is {setting!r}, which can't be written to: {error}") from error
        log.info("no_compile_cache", reason=str(error))
        return None
    return folder


def _user_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "fovea"
