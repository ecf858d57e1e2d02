"""One client spreads its calls over all the addresses that its target has."""

from pathlib import Path

import fovea
import numpy as np

from tests.packages import write_colors
from tests.servers import ServerProcess


def test_calls_go_round_over_the_servers(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "a") as first,
        ServerProcess(tmp_path / "models", tmp_path / "b") as second,
        fovea.Client(f"ipv4:{first.address},{second.address}") as client,
    ):
        # Whichever connects first gets the first calls; from then on they alternate.
        for _ in range(200):
            client.classify(np.zeros((8, 8, 3), np.uint8))
        name = 'fovea_images_total{code="OK",model="colors"}'
        counts = [server.metrics()[name] for server in (first, second)]
    assert sum(counts) == 200
    assert min(counts) >= 50
