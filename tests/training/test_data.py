"""Batches: the same pictures in the same order, wherever an epoch begins and whoever decodes them."""

import multiprocessing
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from service.errors import InvalidImage
from service.preprocess import Preprocessing
from tests.training.data_sources import image_rows, write_csv, write_shards
from tests.training.pictures import picture
from training.data import Batches, open_dataset
from training.errors import DataError
from training.splits import Dataset, Defaults, Split
from training.transforms import EvalTransform, TrainTransform

pytestmark = [
    # The loader forks; since Python 3.12 the interpreter warns of threads, here PyTorch's idle ones.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    # Two workers on one core are slow, and right all the same.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

SPEC = Preprocessing(12, 8, 8)
TRAIN = TrainTransform(SPEC, "resized", mirror=True)
Epoch = list[tuple[torch.Tensor, torch.Tensor]]


def noise(count: int) -> Split:
    """Pictures that are told apart by their labels."""
    images = np.random.default_rng(0).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return Split(images, np.arange(count, dtype=np.int64))


def same(one: Epoch, other: Epoch) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def labels(epoch: Epoch) -> list[list[int]]:
    return [batch.tolist() for _, batch in epoch]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_resumed_goes_on_as_it_would_have(workers: int) -> None:
    batches = Batches(noise(22), TRAIN, 4, shuffle=True, workers=workers, seed=3)
    batches.epoch = 5
    whole = list(batches)
    assert len(whole) == len(batches) == 6
    for start in (1, 4, 6):
        # A new process has a loader of its own.
        resumed = Batches(noise(22), TRAIN, 4, shuffle=True, workers=workers, seed=3)
        resumed.epoch, resumed.start_batch = 5, start
        assert same(list(resumed), whole[start:])
        assert len(resumed) == 6
    batches.start_batch = 2
    assert same(list(batches), whole[2:])


def test_what_is_passed_over_is_not_decoded(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    picture(0, 0).save(good)
    batches = Batches(Split([tmp_path / "gone.png", good], np.zeros(2, np.int64)), EvalTransform(SPEC), 1)
    batches.start_batch = 1
    assert len(list(batches)) == 1
    batches.start_batch = 0
    with pytest.raises(FileNotFoundError):
        list(batches)


def test_workers_live_on_and_an_iteration_that_was_left_does_no_harm() -> None:
    alone = Batches(noise(23), TRAIN, 4, shuffle=True, seed=1)
    together = Batches(noise(23), TRAIN, 4, shuffle=True, workers=2, seed=1)
    seen = set()
    for epoch in (1, 2, 1):
        alone.epoch = together.epoch = epoch
        for _ in together:
            break
        for _ in range(2):
            assert same(list(alone), list(together))
        iterator = together._loader._iterator  # type: ignore[union-attr]  # what holds the processes
        processes = [worker.pid for worker in iterator._workers]  # type: ignore[union-attr]  # as above
        seen.add(tuple(processes))
    assert len(seen) == 1
    workers = iterator._workers  # type: ignore[union-attr]  # as above
    del iterator
    together.close()
    assert not any(worker.is_alive() for worker in workers)
    assert same(list(alone), list(together))


def test_what_broke_in_a_worker_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    batches = Batches(Split([tmp_path / "a.png"], np.zeros(1, np.int64)), TRAIN, 4, workers=1)
    with pytest.raises(InvalidImage, match="not an image"):
        list(batches)


@pytest.mark.parametrize("count", [23, 24, 25, 29, 31])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_each_global_batch_in_equal_parts(count: int, world_size: int) -> None:
    whole = Batches(noise(count), TRAIN, 4 * world_size, shuffle=True, seed=9)
    parts = [
        Batches(noise(count), TRAIN, 4, shuffle=True, seed=9, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for batches in (whole, *parts):
        batches.epoch = 2
    epochs = [list(part) for part in parts]
    assert {len(epoch) for epoch in epochs} == {len(parts[0])}
    together = [list(chain(*several)) for several in zip(*(labels(epoch) for epoch in epochs), strict=True)]
    for batch, mine in zip(labels(list(whole)), together, strict=False):
        # A remainder that can't be shared equally is left out.
        assert mine == batch[: len(mine)]
        assert len(batch) - len(mine) < world_size
    for several in zip(*(labels(epoch) for epoch in epochs), strict=True):
        assert len({len(part) for part in several}) == 1
        assert len(several[0]) > 1
    # Pixels too: what is drawn depends on the picture, not on the process.
    first = torch.cat([epoch[0][0] for epoch in epochs])
    assert torch.equal(first, next(iter(whole))[0])


@pytest.mark.parametrize("count", [1, 5, 8, 13])
def test_what_is_scored_is_scored_once_in_the_batches_of_one_process(count: int) -> None:
    alone = labels(list(Batches(noise(count), EvalTransform(SPEC), 4)))
    parts = [Batches(noise(count), EvalTransform(SPEC), 4, rank=rank, world_size=3) for rank in range(3)]
    for rank, part in enumerate(parts):
        assert labels(list(part)) == alone[rank::3]
    for part in parts:
        assert len(part) == len(list(part))


def test_processes_that_cannot_share_are_refused() -> None:
    with pytest.raises(DataError, match="2 images can't be shared by 3 processes; expected at least as many"):
        Batches(noise(2), TRAIN, 4, shuffle=True, world_size=3)
    with pytest.raises(ValueError, match="rank is 2; expected 0 to world_size - 1 = 1"):
        Batches(noise(9), TRAIN, 4, rank=2, world_size=2)


def test_loaders_are_out_of_reach_of_signals_to_the_group() -> None:
    others = set(multiprocessing.active_children())
    batches = Batches(noise(4), EvalTransform(SPEC), 2, workers=1)
    next(iter(batches))
    (loader,) = set(multiprocessing.active_children()) - others
    assert loader.pid is not None
    assert os.getpgid(loader.pid) != os.getpgrp()
    batches.close()


def test_an_order_of_ones_own() -> None:
    def order(epoch: int) -> Sequence[int]:
        return [epoch, 0, 0, 3, 7, 2]

    batches = Batches(noise(9), EvalTransform(SPEC), 2, order=order)
    batches.epoch = 5
    assert labels(list(batches)) == [[5, 0], [0, 3], [7, 2]]
    assert len(batches) == 3
    batches.epoch, batches.start_batch = 6, 2
    assert labels(list(batches)) == [[7, 2]]
    part = Batches(noise(9), EvalTransform(SPEC), 1, order=order, rank=1, world_size=2)
    assert labels(list(part)) == [[0], [3], [2]]


@pytest.mark.parametrize("workers", [0, 2])
def test_several_labels_are_floats(workers: int) -> None:
    shown = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]], np.uint8)
    split = Split(np.zeros((3, 12, 12, 3), np.uint8), shown)
    ((pixels, targets),) = list(Batches(split, EvalTransform(SPEC), 4, workers=workers))
    assert pixels.dtype == torch.uint8
    assert targets.dtype == torch.float32
    assert torch.equal(targets, torch.from_numpy(shown).float())


def test_every_kind_of_source_gives_the_same_batches(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 4)
    shards = write_shards(tmp_path, rows, ["a.tar"])
    table = write_csv(tmp_path / "t.csv", ["path", "label"], rows)
    seen = []
    for data in (tmp_path / "images", table, shards):
        dataset = open_dataset(str(data))
        # All pictures in one order: each kind divides by keys of its own.
        merged = [
            (bytes(pixels.numpy().tobytes()), int(label))
            for split in (dataset.train, dataset.val, dataset.test)
            for batch in Batches(split, EvalTransform(SPEC), 4)
            for pixels, label in zip(*batch, strict=True)
        ]
        seen.append(sorted(merged))
    assert len(set(seen[0])) == 12
    assert seen[0] == seen[1] == seen[2]


def data_set(labels: NDArray[np.int64], classes: int, task: str) -> Dataset:
    pictures = np.zeros((len(labels), 2, 2, 3), np.uint8)
    split = Split(pictures, labels if task == "single_label" else labels.astype(np.uint8))
    names = tuple(str(label) for label in range(classes))
    return Dataset("d", names, split, split, split, "", Defaults(), task=task)


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    labels = np.repeat(np.arange(4), [1, 7, 20, 3])
    weights = data_set(labels, 4, "single_label").class_weights()
    assert weights.dtype == np.float32
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert np.allclose(weights, expected)
    assert weights[labels].mean() == pytest.approx(1)


def test_class_weights_of_several_labels_weigh_a_class_as_much_as_its_absence() -> None:
    shown = np.zeros((20, 3), np.int64)
    shown[:5, 0] = shown[:, 1] = shown[:10, 2] = 1
    weights = data_set(shown, 3, "multi_label").class_weights()
    assert weights.dtype == np.float32
    # A class that all pictures show keeps a weight, of a picture's share.
    assert np.allclose(weights, [15 / 5, 1 / 20, 1])
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.from_numpy(weights), reduction="none")
    losses = loss(torch.zeros(20, 3), torch.from_numpy(shown).float())
    assert losses[:5, 0].sum() == pytest.approx(float(losses[5:, 0].sum()), rel=1e-5)
