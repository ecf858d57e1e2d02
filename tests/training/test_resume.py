"""A run that was stopped goes on to the very weights that it would have had."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from tests.training.pictures import write_class_folders
from training import run_loop
from training.checkpoint import load_checkpoint
from training.cli import main
from training.config import RunConfig, read_config, write_config
from training.engine import Engine
from training.errors import Interrupted, RunError, SettingError
from training.options import FitOptions
from training.trackers import Trackers
from training.train import fit, resume

# Everything that draws at random, or keeps something from step to step; 5 batches and 3 steps an epoch.
EVERYTHING: dict[str, Any] = {
    "arch": "resnet20-cifar", "input_size": 8, "resize_size": 10, "epochs": 3, "batch_size": 8,
    "accumulate": 2, "workers": 0, "threads": 1, "optimizer": "adamw", "ema_decay": 0.9, "dropout": 0.2,
    "mixup": 0.2, "cutmix": 1.0, "rotation": 10.0, "colour": 0.4, "lighting": 0.1, "clip_norm": 1.0,
    "warmup_epochs": 1, "patience": 2, "checkpoint_every_steps": 2, "trackers": (), "bf16": True,
}  # fmt: skip


class Killed(BaseException):
    """Stands for a kill: nobody catches it, and nothing is written after it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lights")
    for seed, (part, count) in enumerate((("train", 13), ("val", 3), ("test", 3))):
        write_class_folders(root / part, count, seed=100 * seed)
    return root


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything, in one piece."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(options(data, run), silent)
    return run


def options(data: Path, output: Path, **changes: Any) -> FitOptions:
    return FitOptions(str(data), output=output, **EVERYTHING | changes)


def silent(_line: str) -> None:
    pass


def anything(_config: RunConfig) -> None:
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """From now on the process of training dies when it would learn its `batch`-th batch, once."""
    learned = 0
    learn = Engine._learn

    def dying(engine: Engine, *arguments: Any) -> None:
        nonlocal learned
        learned += 1
        if learned == batch:
            raise Killed
        learn(engine, *arguments)

    monkeypatch.setattr(Engine, "_learn", dying)


def tensors(value: Any) -> list[Tensor]:
    """All tensors in what a checkpoint holds, in its order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors(item)]
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, list | tuple) else []


def untimed(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not re.search("seconds|second$", name)}
        for line in lines
    ]


def assert_same(run: Path, whole: Path) -> None:
    for name in ("best.pt", "last.pt"):
        one, other = (load_checkpoint(folder / "checkpoints" / name) for folder in (run, whole))
        assert (one.epoch, one.step, one.metrics) == (other.epoch, other.step, other.metrics)
        mine, theirs = tensors([one.model, one.progress]), tensors([other.model, other.progress])
        assert len(mine) == len(theirs)
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert untimed(run) == untimed(whole)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run, whole)]
    for summary in summaries:
        del summary["run"], summary["seconds"]
    assert summaries[0] == summaries[1]


# At the very start; inside an accumulation; right behind a checkpoint; in the 2nd epoch; at the last batch.
@pytest.mark.parametrize("batch", [1, 2, 5, 8, 11, 15])
def test_a_killed_run_ends_as_if_nothing_had_been(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at(patch, batch)
        with pytest.raises(Killed):
            fit(options(data, run), silent)
    assert not (run / "summary.json").exists()
    torch.manual_seed(99)  # whatever the new process has drawn before
    resume(run, anything, silent)
    assert_same(run, whole)


def test_several_kills_with_workers_and_another_optimizer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "optimizer": "lamb",
        "workers": 1,
        "mixup": 0.0,
        "cutmix": 0.0,
        "trivial_augment": True,
        "epochs": 2,
    }
    fit(options(data, tmp_path / "whole", **changes), silent)
    run = tmp_path / "run"
    for first, batch in ((True, 4), (False, 3), (False, 3)):
        with monkeypatch.context() as patch:
            killed_at(patch, batch)
            with pytest.raises(Killed):
                fit(options(data, run, **changes), silent) if first else resume(run, anything, silent)
    resume(run, anything, silent)
    assert_same(run, tmp_path / "whole")


@pytest.mark.parametrize("written", ["best.pt", "metrics.jsonl"])
def test_a_kill_between_two_files_of_an_epochs_end_leaves_no_doubles(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    run = tmp_path / "run"

    def dying(*_arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if written == "best.pt":
            patch.setattr(run_loop, "log_epoch", dying)
        else:
            patch.setattr(Engine, "next_epoch", dying)
        with pytest.raises(Killed):
            fit(options(data, run), silent)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "los')  # cut short by the kill
    (run / "checkpoints" / ".last.pt.123").write_bytes(b"half a checkpoint")
    resume(run, anything, silent)
    assert_same(run, whole)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.pt", "last.pt"}


def test_trackers_are_told_the_same_losses(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[int, float] = {}

    def log(_self: Trackers, values: Mapping[str, float], step: int) -> None:
        if "step/loss" in values:
            told[step] = values["step/loss"]

    monkeypatch.setattr(run_loop, "_STEPS_BETWEEN_LOGS", 1)
    monkeypatch.setattr(Trackers, "log", log)
    fit(options(data, tmp_path / "whole", epochs=1, warmup_epochs=0), silent)
    whole = dict(told)
    told.clear()
    with monkeypatch.context() as patch:
        killed_at(patch, 5)
        with pytest.raises(Killed):
            fit(options(data, tmp_path / "run", epochs=1, warmup_epochs=0), silent)
    resume(tmp_path / "run", anything, silent)
    assert told == whole
    assert len(whole) == 3


def test_early_stopping_counts_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A learning rate that changes nothing: no epoch after the first is better.
    changes = {"epochs": 9, "patience": 2, "learning_rate": 1e-12, "ema_decay": 0.0, "warmup_epochs": 0}
    summary = fit(options(data, tmp_path / "whole", **changes), silent)
    assert summary.epochs == len(untimed(tmp_path / "whole"))
    assert summary.epochs < 9
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at(patch, 5 * (summary.epochs - 1) + 3)
        with pytest.raises(Killed):
            fit(options(data, run, **changes), silent)
    resume(run, anything, silent)
    assert_same(run, tmp_path / "whole")


def test_ctrl_c_leaves_a_run_that_goes_on(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    take = Engine._take_step

    def interrupted(engine: Engine) -> None:
        take(engine)
        if engine.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_take_step", interrupted)
        with pytest.raises(
            Interrupted, match=f"after step 5, in epoch 2 of 3.*fit --resume {run}"
        ) as stopped:
            fit(options(data, run), silent)
    assert stopped.value.signal == signal.SIGINT
    assert load_checkpoint(run / "checkpoints" / "last.pt").step == 5
    resume(run, anything, silent)
    assert_same(run, whole)


def test_sigterm_ends_the_command_as_a_signal_would(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(whole, tmp_path)
    (run / "checkpoints" / "last.pt").unlink()  # it begins anew
    take = Engine._take_step

    def interrupted(engine: Engine) -> None:
        take(engine)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_take_step", interrupted)
        result = resumed(run)
    assert result.exit_code == 128 + signal.SIGTERM
    assert (
        f"stopped after step 1, in epoch 1 of 3; to go on from there: fovea-train fit --resume {run}"
        in result.output
    )
    assert resumed(run).exit_code == 0
    assert_same(run, whole)


def test_kill_9_of_a_real_process(data: Path, tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "arch": "resnet20-cifar", "input_size": 8, "resize_size": 10, "epochs": 12, "batch_size": 8,
        "threads": 1, "workers": 1, "ema_decay": 0.9, "mixup": 0.2, "checkpoint_every_steps": 1,
    }  # fmt: skip
    typed = [f"--{name.replace('_', '-')}={value}" for name, value in told.items()]
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.pt"
    command = [sys.executable, "-m", "training", "fit", f"--data={data}", f"--output={run}", *typed]
    process = subprocess.Popen([*command, "--trackers=none"], stdout=subprocess.DEVNULL)
    while process.poll() is None and not (last.exists() and load_checkpoint(last).step >= 3):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 3 <= load_checkpoint(last).step < 5 * 12
    resume(run, anything, silent)
    fit(FitOptions(str(data), output=tmp_path / "whole", trackers=(), **told), silent)
    assert_same(run, tmp_path / "whole")


def test_other_data_are_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    run = stopped(whole, tmp_path)
    moved = tmp_path / "data"
    shutil.copytree(data, moved)
    config = read_config(run)
    write_config(run, replace(config, data=replace(config.data, source=str(moved))))
    victim = moved / "train" / "red" / "001.png"
    victim.write_bytes((moved / "train" / "red" / "002.png").read_bytes())
    with pytest.raises(SettingError, match=r"isn't what the run in .* was started on: it has .* train"):
        resume(run, anything, silent)
    # The same data in another place are the same.
    victim.write_bytes((data / "train" / "red" / "001.png").read_bytes())
    resume(run, anything, silent)
    assert_same(run, whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "5"], "--epochs is 5, the run's is 3"),
        (["--mixup", "0.5", "--seed", "1"], "--mixup is 0.5, the run's is 0.2; --seed is 1, the run's is 0"),
        (["--data", "elsewhere"], "--data is elsewhere, the run's is /"),
        (["--no-channels-last"], "--channels-last is off, the run's is on"),
        (["--output", "elsewhere"], "--output means nothing with --resume"),
        (["--arch", "resnet18"], "--arch is resnet18, the run's is resnet20-cifar"),
    ],
)
def test_changed_options_are_refused(whole: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = resumed(stopped(whole, tmp_path), *arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_the_same_options_are_taken(data: Path, whole: Path, tmp_path: Path) -> None:
    run = stopped(whole, tmp_path)
    told = ("--data", str(data), "--epochs", "3", "--bf16", "--device", "auto", "--trackers", "none")
    result = resumed(run, *told)
    assert result.exit_code == 0, result.output
    assert "going on after step 9, with 3 epochs done" in result.output
    assert_same(run, whole)


def test_a_finished_run_is_refused(whole: Path) -> None:
    with pytest.raises(RunError, match="has come to its end; expected a run that was stopped"):
        resume(whole, anything, silent)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.toml: can't be read"):
        resume(tmp_path, anything, silent)


def test_another_number_of_processes_is_refused(whole: Path, tmp_path: Path) -> None:
    run = stopped(whole, tmp_path)
    config = read_config(run)
    write_config(run, replace(config, run=replace(config.run, world_size=2)))
    with pytest.raises(SettingError, match=r"was started with 2 processes, this is 1; .*--nproc-per-node 2"):
        resume(run, anything, silent)


def test_an_old_run_is_refused(whole: Path, tmp_path: Path) -> None:
    run = stopped(whole, tmp_path)
    config = read_config(run)
    write_config(run, replace(config, data=replace(config.data, fingerprint="")))
    with pytest.raises(RunError, match="whose runs can't be resumed"):
        resume(run, anything, silent)


def test_the_recorded_threads_are_enforced(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    resume(stopped(whole, tmp_path), anything, silent)
    assert set_to == [1]


def stopped(whole: Path, tmp_path: Path) -> Path:
    """A copy of a run as it was just before its end."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "summary.json").unlink()
    return run


def resumed(run: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["fit", "--resume", str(run), *arguments])
