"""`fovea import-model`, and its package as the service runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from service.cli import main
from service.manifest import read_manifest
from service.model_settings import ModelSettings
from service.session import ModelSession, open_sessions
from tests.service.cli.import_model.foreign_models import SIZE, save

Import = Callable[..., Result]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def import_model(tmp_path: Path, repository: Path) -> Import:
    """Imports a model, or a file, as `foreign`; an exception that would be a traceback is raised."""

    def run(model: onnx.ModelProto | Path, *options: object) -> Result:
        file = model if isinstance(model, Path) else save(tmp_path / "foreign.onnx", model)
        arguments = ["import-model", str(file), "--model-repository", str(repository), *map(str, options)]
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run


def opened(repository: Path, name: str = "foreign", version: int = 1) -> ModelSession:
    """The package in the service's own session."""
    settings = ModelSettings(execution_provider="cpu", compile_cache="", max_batch_size=5)
    (session,) = open_sessions(read_manifest(repository / name / str(version)), settings)
    return session


def pictures(count: int, seed: int = 0, size: int = SIZE) -> NDArray[np.uint8]:
    """Soft colours, as photographs have them: uint8 [count, size, size, 3]."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 4, 4, 3)).repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)
    noise = draw.integers(-20, 20, (count, size, size, 3))
    made: NDArray[np.uint8] = np.clip(coarse[:, :size, :size] + noise, 0, 255).astype(np.uint8)
    return made
