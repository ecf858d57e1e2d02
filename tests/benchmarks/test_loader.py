"""What measures the loader."""

import numpy as np
import pytest

from benchmarks.loader import loader_rate, measure_loader
from service.preprocess import Preprocessing
from training.data import Batches
from training.splits import Split
from training.transforms import EvalTransform

# The loader forks; since Python 3.12 the interpreter warns of threads, here PyTorch's idle ones.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_is_measured_over_as_many_epochs_as_it_takes(workers: int) -> None:
    split = Split(np.zeros((20, 16, 16, 3), np.uint8), np.zeros(20, np.int64))
    batches = Batches(split, EvalTransform(Preprocessing(8, 8, 8)), 8, workers=workers)
    measured = measure_loader(batches, 0.1)
    assert measured.rate > 0
    assert measured.processor_ms >= 0
    assert batches.epoch > 1
    assert loader_rate(batches, 0.0) > 0
    batches.close()
