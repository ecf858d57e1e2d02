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
from training.checkpoint import load_checkpoint
from training.config import read_config
from training.options import FitOptions
from training.train import fit

# 48 pictures: each of two has 3 batches of 8, one alone has 6 and accumulates two of them.
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
        work: the folder with their runs `whole` and `killed`.
        said: on the terminal.
    """

    data: Path
    work: Path
    said: str


# Two processes that import PyTorch, on a machine that may be busy with others.
_TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    work = tmp_path_factory.mktemp("pair")
    for seed, (part, count) in enumerate((("train", 16), ("val", 3), ("test", 3))):
        write_class_folders(work / "lights" / part, count, seed=100 * seed)
    told = json.dumps(TOLD | {"data": str(work / "lights")})
    code, whole = torchrun(work / "whole", told)
    assert code == 0, whole
    code, killed = torchrun(work / "killed", told)
    assert code != 0, killed
    code, resumed = torchrun(work / "killed")
    assert code == 0, resumed
    return Pair(work / "lights", work, whole + killed + resumed)


def torchrun(run: Path, *arguments: str) -> tuple[int, str]:
    """Both processes, on a free port of the loopback interface, to their end: exit status and output."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
            *("--local-addr", "127.0.0.1", "-m", "tests.training.two_processes", str(run), *arguments),
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


def test_a_stopped_pair_goes_on_bitwise(pair: Pair) -> None:
    for name in ("best.pt", "last.pt"):
        killed, whole = (
            load_checkpoint(pair.work / run / "checkpoints" / name) for run in ("killed", "whole")
        )
        assert (killed.epoch, killed.step, killed.metrics) == (whole.epoch, whole.step, whole.metrics)
        assert all(torch.equal(value, whole.model[key]) for key, value in killed.model.items())
    timed = ("train_seconds", "train_images_per_second")
    bare = [
        [{key: value for key, value in line.items() if key not in timed} for line in lines(pair.work / run)]
        for run in ("killed", "whole")
    ]
    assert bare[0] == bare[1]


def test_one_process_writes_and_speaks_for_both(pair: Pair) -> None:
    assert pair.said.count("in batches of 8 × 2 processes") == 3  # whole, killed, resumed
    assert read_config(pair.work / "whole").run.world_size == 2
    assert {path.name for path in (pair.work / "whole").iterdir()} == {
        "checkpoints", "config.toml", "metrics.jsonl", "splits.json", "summary.json", "temperature.json",
    }  # fmt: skip
