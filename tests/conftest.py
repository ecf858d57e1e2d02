"""What many tests share: a running server with small real models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import ServerProcess, colors_server

# How long an example takes is the machine's affair, and fails no test.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server may open images in."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, image_root: Path) -> Iterator[ServerProcess]:
    """A server with the models `colors` (the default) and `broken`, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("server")
    options = ("--snapshot-path", str(folder / "snapshots"), "--image-root", str(image_root))
    with colors_server(folder, *options) as process:
        yield process


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Real photographs, where they lie beside the checkout."""
    if not PHOTOS.is_dir():
        pytest.skip(f"no photographs at {PHOTOS}")
    return sorted(PHOTOS.glob("*.JPEG"))
