"""The request path where no network is needed; the rest is in test_requests.py."""

import time
from pathlib import Path

from service.admission import Load
from service.config import Config
from service.errors import Overloaded
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.repository import ModelRepository
from tests.packages import write_colors


async def test_of_those_refused_unread_some_are_read_since_they_may_be_bulk(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    config, metrics = Config(model_repository=tmp_path / "models", execution_provider="cpu"), Metrics()
    repository = ModelRepository(config, metrics)
    pipeline = Pipeline(config, 1, metrics, lambda error: type(error).__name__)
    model, _ = await repository.load("colors")
    deadline = time.monotonic() + 60
    pipeline.refuse_early(model, deadline)
    full = model.admission.admit(Load(config.queue_capacity, 1), deadline)
    refused = 0
    for _ in range(16):
        try:
            pipeline.refuse_early(model, deadline)
        except Overloaded:
            refused += 1
    assert refused == 14
    shed = metrics.registry.get_sample_value("fovea_shed_total", {"model": "colors", "reason": "full"})
    assert shed == 14
    full.release()
    pipeline.refuse_early(model, deadline)
    assert await repository.close(5)
    assert pipeline.close(5)
