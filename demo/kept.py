"""What an earlier demo left in its work folder, and whether it can be used as it is."""

import hashlib
from pathlib import Path

from service.errors import StartError
from service.manifest import read_manifest
from training.errors import TrainingError
from training.run_model import load_run_model


def run_is_whole(run: Path, data: str, architecture: str) -> bool:
    """Whether a run of `fovea-train fit` on this data and network came to its end, and its weights load."""
    if not (run / "summary.json").is_file():
        return False
    try:
        config = load_run_model(run).config
    except TrainingError:
        return False
    return (config.data.source, config.model.architecture) == (data, architecture)


def package_is_whole(package: Path) -> bool:
    """Whether a model package can be served: its manifest is sound, its files are those that it names."""
    try:
        manifest = read_manifest(package)
        return all(
            hashlib.sha256((package / variant.file).read_bytes()).hexdigest() == variant.sha256
            for variant in manifest.variants
        )
    except (StartError, OSError):
        return False
