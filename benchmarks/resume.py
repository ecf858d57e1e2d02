"""kill -9 at random moments, and what comes of the runs that go on: bitwise the same weights, or not.

    python -m benchmarks.resume

A run of `fovea-train fit` with everything that draws at random or carries over from step to step (workers,
mixup, cutmix, kornia's operations, dropout, accumulation, LAMB, an average of the weights, bfloat16, early
stopping) is made once in one piece. Then the same run is started again and again, killed (SIGKILL) a random
number of steps after it began or went on, at a random moment of the step, and gone on with by --resume, until
as many kills as asked for have hit.
Compared are the tensors of best.pt and last.pt (weights, average, optimizer), metrics.jsonl and summary.json,
but for what depends on the clock.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from training.checkpoint import load_checkpoint

TOLD = (
    *("--data", "digits", "--arch", "resnet20-cifar", "--batch-size", "32", "--accumulate", "2"),
    *(
        "--workers",
        "1",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--optimizer",
        "lamb",
        "--learning-rate",
        "0.01",
    ),
    *("--ema-decay", "0.99", "--dropout", "0.1", "--mixup", "0.2", "--cutmix", "1", "--rotation", "10"),
    *("--trivial-augment", "--erasing", "0.25", "--clip-norm", "1", "--bf16", "--patience", "50"),
    *("--checkpoint-every-steps", "2"),
)
_ON_THE_CLOCK = ("seconds", "train_seconds", "train_images_per_second", "run")


def main() -> None:
    """Kill, compare, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--quick", action="store_true", help="a smoke run with one kill, without figures")
    options = parser.parse_args()
    kills, epochs = (1, 1) if options.quick else (options.kills, options.epochs)
    told = (*TOLD, "--epochs", str(epochs))
    draw = random.Random(options.seed)  # noqa: S311 - moments, not secrets
    print(describe())
    with tempfile.TemporaryDirectory() as work:
        whole = Path(work) / "whole"
        started = time.monotonic()
        _process(whole, *told, "--output", str(whole), kill_after=None)
        seconds = json.loads((whole / "summary.json").read_text())["seconds"]
        steps = load_checkpoint(whole / "checkpoints" / "last.pt").step
        print(f"in one piece: {steps} steps in {seconds:.1f} s, {time.monotonic() - started:.1f} s in all")
        done, equal, runs = 0, 0, 0
        while done < kills:
            run = Path(work) / f"run{runs}"
            runs += 1
            arguments: tuple[str, ...] = (*told, "--output", str(run))
            while not (run / "summary.json").exists():
                # Several kills a run, at any moment of it; after the last one it goes to its end.
                moment = (draw.randrange(steps // 3), draw.uniform(0, 2 * seconds / steps))
                if _process(run, *arguments, kill_after=moment if done < kills else None):
                    done += 1
                    print(f"run {runs}, kill {done}: goes on after step {_step(run)}", flush=True)
                if (run / "config.toml").exists():
                    arguments = ("--resume", str(run))
            same = differences(run, whole)
            equal += not same
            print(f"run {runs}: {'bitwise the same' if not same else '; '.join(same)}", flush=True)
    conclude(
        Figure("resume_kills", done, kills),
        Figure("resume_equal_runs_share", equal / runs, 1.0),
        quick=options.quick,
    )


def differences(run: Path, whole: Path) -> list[str]:
    """What differs between two finished runs, in words; nothing where they are the same to the last bit."""
    found = []
    for name in ("best.pt", "last.pt"):
        one, other = (load_checkpoint(folder / "checkpoints" / name) for folder in (run, whole))
        mine, theirs = _tensors([one.model, one.progress]), _tensors([other.model, other.progress])
        unequal = sum(not torch.equal(a, b) for a, b in zip(mine, theirs, strict=False))
        if unequal or len(mine) != len(theirs) or (one.epoch, one.step) != (other.epoch, other.step):
            found.append(f"{name} differs in {unequal} of {len(theirs)} tensors")
    texts = ("metrics.jsonl", "summary.json")
    found += [f"{name} differs" for name in texts if _untimed(run / name) != _untimed(whole / name)]
    return found


def _process(run: Path, *arguments: str, kill_after: tuple[int, float] | None) -> bool:
    """`fovea-train fit` to its end, or killed behind so many steps and seconds; whether it was killed."""
    goal = _step(run) + kill_after[0] if kill_after else 0
    # Loaders complain when their process is gone; that is shown only where nobody killed it.
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "training", "fit", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if kill_after and "; into " in line:
                    while process.poll() is None and _step(run) < goal:
                        time.sleep(0.02)
                    time.sleep(kill_after[1])
                    process.kill()
                    break
            process.stdout.read()
        finally:
            process.stdout.close()
            status = process.wait()
        if status not in (0, -9):
            complaints.seek(0)
            raise SystemExit(
                f"fovea-train fit {' '.join(arguments)} ended with status {status}: {complaints.read()}"
            )
    return status == -9


def _step(run: Path) -> int:
    """The one behind which a run can go on; 0 where it begins anew."""
    last = run / "checkpoints" / "last.pt"
    return load_checkpoint(last).step if last.exists() else 0


def _untimed(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    documents = (
        [json.loads(text)] if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    )
    return [
        {key: value for key, value in document.items() if key not in _ON_THE_CLOCK} for document in documents
    ]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]


if __name__ == "__main__":
    main()
