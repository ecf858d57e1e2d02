"""One run that makes mistakes, and a server with its package."""

from collections.abc import Iterator

import pytest

from tests.servers import ServerProcess
from tests.training.noisy import Noisy


@pytest.fixture(scope="package")
def noisy_server(noisy: Noisy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(noisy.repository, tmp_path_factory.mktemp("index")) as process:
        yield process
