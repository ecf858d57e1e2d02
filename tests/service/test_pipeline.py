"""The request path where no network is needed; the rest is in test_requests.py."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from service.admission import Load
from service.config import Config
from service.errors import Overloaded
from service.image import RawImage
from service.metrics import Metrics
from service.model import Model, Prediction
from service.pipeline import InferenceRequest, Pipeline
from service.repository import ModelRepository
from tests.packages import write_colors, write_network


@asynccontextmanager
async def serving(
    folder: Path, write: Callable[[Path], Path], decode_threads: int
) -> AsyncIterator[tuple[Pipeline, Model, Config, Metrics]]:
    """The request path to the one model that `write` writes."""
    name = write(folder).parent.name
    config, metrics = Config(model_repository=folder, execution_provider="cpu"), Metrics()
    repository = ModelRepository(config, metrics)
    pipeline = Pipeline(config, decode_threads, metrics, lambda error: type(error).__name__)
    model, _ = await repository.load(name)
    yield pipeline, model, config, metrics
    assert await repository.close(5)
    assert pipeline.close(5)


async def test_of_those_refused_unread_some_are_read_since_they_may_be_bulk(tmp_path: Path) -> None:
    async with serving(tmp_path, write_colors, decode_threads=1) as (pipeline, model, config, metrics):
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


@pytest.mark.parametrize("decode_threads", [0, 1])
async def test_an_image_alone_is_answered_as_in_a_batch(tmp_path: Path, decode_threads: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    images = [RawImage(each.tobytes(), 8, 8) for each in pixels]
    async with serving(tmp_path, write_network, decode_threads) as (pipeline, model, _, _):
        deadline = time.monotonic() + 60
        together = await pipeline.infer(InferenceRequest(model, images, deadline, top_k=3))
        for image, in_batch in zip(images, together, strict=True):
            (alone,) = await pipeline.infer(InferenceRequest(model, [image], deadline, top_k=3))
            assert isinstance(alone, Prediction)
            assert isinstance(in_batch, Prediction)
            np.testing.assert_allclose(alone.logits, in_batch.logits, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(alone.embedding, in_batch.embedding, rtol=1e-4, atol=1e-5)
            assert alone.classes == in_batch.classes
