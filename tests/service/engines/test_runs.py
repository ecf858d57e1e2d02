"""Bound buffers give what plain runs give; on the CPU here, the same code binds GPU memory."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from service.engines.runs import BoundRuns, PlainRuns
from tests.packages import write_network

OUTPUTS: dict[str, tuple[int, ...]] = {"logits": (3,), "embedding": (8,)}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    folder: Path = write_network(tmp_path_factory.mktemp("models"))
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def test_bound_runs_equal_plain_runs(session: onnxruntime.InferenceSession) -> None:
    plain = PlainRuns(session, "image", list(OUTPUTS))
    bound = BoundRuns(session, "image", OUTPUTS, device=None)
    random = np.random.default_rng(0)
    kept = []
    for size in (1, 4, 4, 1, 2, 4):
        batch = random.integers(0, 256, (size, 8, 8, 3), np.uint8)
        expected, outputs = plain(batch), bound(batch)
        for left, right in zip(expected, outputs, strict=True):
            np.testing.assert_array_equal(left, right)
        kept.append((expected, outputs))
    # Later runs go through the same buffers, and leave earlier results alone.
    for expected, outputs in kept:
        np.testing.assert_array_equal(expected[0], outputs[0])
