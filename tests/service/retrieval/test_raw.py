"""Raw scores of single rows, wherever they lie."""

import numpy as np
import pytest

from service.retrieval import raw
from service.retrieval.index import Metric, Storage
from service.retrieval.raw import raw_of
from service.retrieval.rows import Rows
from service.retrieval.segments import Segments
from tests.service.retrieval.clusters import DIMENSION, drawn, filled


@pytest.mark.parametrize("storage", Storage)
@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
def test_of_any_rows_in_any_order(storage: Storage, metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_BLOCK_VALUES", 7 * DIMENSION)  # blocks that begin and end within segments
    vectors, queries = drawn(250, 1), drawn(3, 2)
    if storage is Storage.FLOAT16:
        vectors = vectors.astype(np.float16).astype(np.float32)
    rows = Rows(filled(vectors, segments=Segments(DIMENSION, 40, storage=storage)).view())
    numbers = np.random.default_rng(1).integers(-1, 250, (3, 100))
    numbers[1] = -1
    scores = raw_of(rows, metric, queries, numbers)
    for query, line, given in zip(queries, numbers, scores, strict=True):
        chosen = vectors[line].astype(np.float64)
        expected = -np.square(chosen - query).sum(axis=1) if metric is Metric.L2 else chosen @ query
        np.testing.assert_allclose(given, np.where(line < 0, -np.inf, expected), rtol=1e-5, atol=1e-6)


def test_every_finite_float16_is_made_the_same_float32() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = every[np.isfinite(every)][None]
    np.testing.assert_array_equal(
        raw._float32(halves, np.empty(halves.shape, np.int32)), halves.astype(np.float32)
    )
