"""One client spreads its calls over all the addresses that its target has."""

from pathlib import Path

import fovea
import numpy as np

from tests.client.waiting import until
from tests.packages import write_colors
from tests.servers import ServerProcess


def test_calls_go_round_over_the_servers(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "a") as first,
        ServerProcess(tmp_path / "models", tmp_path / "b") as second,
        fovea.Client(f"ipv4:{first.address},{second.address}") as client,
    ):
        name = 'fovea_images_total{code="OK",model="colors"}'

        def call() -> None:
            client.classify(np.zeros((8, 8, 3), np.uint8))

        def counts() -> list[float]:
            return [server.metrics().get(name, 0.0) for server in (first, second)]

        def both_answered() -> bool:
            call()
            return min(counts()) > 0

        # Whichever connects first gets the first calls; from then on they alternate.
        until(both_answered)
        before = counts()
        for _ in range(200):
            call()
        rises = [after - start for after, start in zip(counts(), before, strict=True)]
    assert sum(rises) == 200
    assert min(rises) >= 50
