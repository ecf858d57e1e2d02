"""Two processes that share gradients by gloo, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.pictures import write_class_folders
from tests.training.two_processes import FROZEN_S, scores
from training.checkpoint import load_checkpoint
from training.config import read_config
from training.data import open_dataset
from training.distributed import World
from training.normalization import Normalization
from training.objective import CrossEntropy
from training.options import FitOptions
from training.run_model import load_run_model
from training.setup import scored_batches
from training.train import fit

# 48 pictures: each of two has 3 batches of 8, one alone has 6 and accumulates two of them. 9 are val: a whole
# batch for the one and a single picture for the other; 6 are test: none for the other.
TOLD: dict[str, Any] = {
    "arch": "resnet20-cifar", "input_size": 8, "resize_size": 10, "epochs": 2, "batch_size": 8,
    "workers": 0, "threads": 1, "learning_rate": 0.01, "trackers": (), "seed": 3, "device": "cpu",
    "dropout": 0.2, "mixup": 0.2, "rotation": 10.0, "ema_decay": 0.9, "checkpoint_every_steps": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """What two processes did.

    Attributes:
        data: what they learned from.
        work: the folder with their runs `whole` and `broken`.
        whole: what was said of the run in one piece.
        stopped, lost, resumed: of the other, until one process got a signal, until one was killed, and to
            its end.
    """

    data: Path
    work: Path
    whole: str
    stopped: str
    lost: str
    resumed: str


# Two processes that import PyTorch, on a machine that may be busy with others.
_TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    work = tmp_path_factory.mktemp("pair")
    for seed, (part, count) in enumerate((("train", 16), ("val", 3), ("test", 2))):
        write_class_folders(work / "lights" / part, count, seed=100 * seed)
    told = TOLD | {"data": str(work / "lights")}
    code, whole = torchrun("none", work / "whole", json.dumps(told))
    assert code == 0, whole
    code, stopped = torchrun("signalled", work / "broken", json.dumps(told | {"workers": 1}))
    assert code != 0, stopped
    assert load_checkpoint(work / "broken" / "checkpoints" / "last.pt").step == 2
    code, lost = torchrun("killed", work / "broken")
    assert code != 0, lost
    assert load_checkpoint(work / "broken" / "checkpoints" / "last.pt").step == 5
    code, resumed = torchrun("none", work / "broken")
    assert code == 0, resumed
    return Pair(work / "lights", work, whole, stopped, lost, resumed)


def torchrun(*arguments: object) -> tuple[int, str]:
    """Both processes, on a free port of the loopback interface, to their end: exit status and output."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
            *("--local-addr", "127.0.0.1", "-m", "tests.training.two_processes", *map(str, arguments)),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:  # they wait for each other: end them all
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"not over after {_TIMEOUT_S:g} s: {said[-3000:]}")
    return process.returncode, said


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_losses_are_those_of_one_process_that_accumulates_both_batches(pair: Pair, tmp_path: Path) -> None:
    fit(FitOptions(str(pair.data), output=tmp_path / "one", accumulate=2, **TOLD), lambda _line: None)
    together, alone = lines(pair.work / "whole"), lines(tmp_path / "one")
    assert len(together) == 2
    for mine, other in zip(together, alone, strict=True):
        assert mine["step"] == other["step"]
        assert mine["learning_rate"] == other["learning_rate"]
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert mine["train_accuracy"] == other["train_accuracy"]
    weights = [
        load_checkpoint(run / "checkpoints" / "last.pt").progress["engine"]["weights"]
        for run in (pair.work / "whole", tmp_path / "one")
    ]
    for name, value in weights[0].items():
        # Batch normalisation's running statistics are each process's own.
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5)


def test_both_score_what_one_process_would_to_the_last_bit(pair: Pair) -> None:
    loaded = load_run_model(pair.work / "whole")
    torch.set_num_threads(loaded.config.run.threads)
    # As it was trained.
    model = loaded.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
    normalization = Normalization(loaded.config.normalization.mean, loaded.config.normalization.std)
    dataset = open_dataset(str(pair.data))
    assert (len(dataset.val), len(dataset.test)) == (9, 6)
    val, test = (
        CrossEntropy().validate(
            model, normalization, scored_batches(loaded.config, split), torch.device("cpu")
        )
        for split in (dataset.val, dataset.test)
    )
    assert loaded.checkpoint.metrics == val
    summary = json.loads((pair.work / "whole" / "summary.json").read_text())
    assert {name: summary[f"test_{name}"] for name in test} == test


def test_a_broken_pair_goes_on_bitwise(pair: Pair) -> None:
    for name in ("best.pt", "last.pt"):
        broken, whole = (
            load_checkpoint(pair.work / run / "checkpoints" / name) for run in ("broken", "whole")
        )
        assert (broken.epoch, broken.step, broken.metrics) == (whole.epoch, whole.step, whole.metrics)
        assert all(torch.equal(value, whole.model[key]) for key, value in broken.model.items())
    timed = ("train_seconds", "train_images_per_second")
    bare = [
        [{key: value for key, value in line.items() if key not in timed} for line in lines(pair.work / run)]
        for run in ("broken", "whole")
    ]
    assert bare[0] == bare[1]


def test_a_signal_to_one_stops_both_after_the_same_step(pair: Pair) -> None:
    for rank in range(2):
        assert f"process {rank}: stopped after step 2, in epoch 1 of 2; to go on" in pair.stopped
    assert "going on after step 2, with 0 epochs done" in pair.lost


def test_one_that_is_killed_ends_the_other(pair: Pair) -> None:
    assert "process 0: another process of this run is gone, or hasn't answered for 600 s" in pair.lost
    assert "going on after step 5, with 1 epoch done" in pair.resumed


def test_one_process_writes_and_speaks_for_both(pair: Pair) -> None:
    for said in (pair.whole, pair.stopped, pair.lost, pair.resumed):
        assert said.count("in batches of 8 × 2 processes") == 1
    assert read_config(pair.work / "whole").run.world_size == 2
    assert {path.name for path in (pair.work / "whole").iterdir()} == {
        "checkpoints", "config.toml", "metrics.jsonl", "splits.json", "summary.json", "temperature.json",
    }  # fmt: skip


def test_every_score_is_exact_and_a_frozen_process_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    code, said = torchrun("frozen", tmp_path)
    assert code != 0
    assert f"process 0: another process of this run is gone, or hasn't answered for {FROZEN_S} s" in said
    alone = scores(World())
    assert len({json.dumps(each, sort_keys=True) for each in alone}) == len(alone)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
