"""What each of two processes does that `test_distributed.py` has torchrun start."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.preprocess import Preprocessing
from training import distributed
from training.data import Batches, Split
from training.distributed import World, joined
from training.engine import Engine
from training.errors import TrainingError
from training.models import architecture
from training.models.heads import with_embedding
from training.normalization import Normalization
from training.objective import BinaryCrossEntropy, CrossEntropy
from training.options import FitOptions
from training.retrieval import EmbeddingCrossEntropy
from training.train import fit, resume
from training.transforms import EvalTransform

FROZEN_S = 5


def scores(world: World) -> list[dict[str, float]]:
    """Of three objectives on pictures whose batches don't divide, and on so few that one process has none."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = with_embedding(architecture("resnet20-cifar").build(3), "avg", 6)
    for buffer in model.buffers():
        # As after a step: statistics that are each process's own.
        buffer += world.rank
    world.align(model)
    random = np.random.default_rng(0)
    found = []
    for count in (13, 4):
        pixels = random.integers(0, 256, (count, 8, 8, 3), np.uint8)
        one, several = np.arange(count) % 2, random.integers(0, 2, (count, 3)).astype(np.uint8)
        for objective, labels in (
            (CrossEntropy(), one),
            (BinaryCrossEntropy("multi_label"), several),
            (EmbeddingCrossEntropy(), one),
        ):
            batches = Batches(
                Split(pixels, labels),
                EvalTransform(Preprocessing(8, 8, 8)),
                4,
                rank=world.rank,
                world_size=world.size,
            )
            normalization = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
            found.append(objective.validate(model, normalization, batches, torch.device("cpu")))
    return found


def score_and_freeze(folder: Path) -> None:
    """Both leave their scores; then the second one never answers again."""
    distributed.STEP_TIMEOUT = timedelta(seconds=FROZEN_S)
    (folder / os.environ["RANK"]).touch()
    while len(list(folder.iterdir())) < 2:  # imports take their time
        time.sleep(0.01)
    with joined("cpu") as world:
        (folder / f"{world.rank}.json").write_text(json.dumps(scores(world)))
        if world.rank == 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(600)
        world.highest(0)


def signalled() -> None:
    """From now on the second process, with its loaders, gets SIGTERM twice after the second step of all."""
    take = Engine._take_step

    def signalling(engine: Engine) -> None:
        take(engine)
        if engine.step == 2 and engine.world.rank == 1:
            for _ in range(2):
                os.killpg(os.getpgrp(), signal.SIGTERM)

    Engine._take_step = signalling  # type: ignore[method-assign, assignment]  # mypy minds both


def killed() -> None:
    """From now on the second process is killed in its second epoch."""
    learn = Engine._learn

    def dying(engine: Engine, *arguments: Any) -> None:
        if (engine.epoch, engine.batch, engine.world.rank) == (2, 2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        learn(engine, *arguments)

    Engine._learn = dying  # type: ignore[method-assign, assignment]  # likewise


MISHAPS: dict[str, Callable[[], None]] = {"none": lambda: None, "signalled": signalled, "killed": killed}


if __name__ == "__main__":
    # torchrun sends it to the one as soon as the other has ended; this one is to say what it has to say.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mishap, folder = sys.argv[1], Path(sys.argv[2])
    # One run a process: what the first left in torchrun's store could make a second one wait for ever.
    try:
        if mishap == "frozen":
            score_and_freeze(folder)
        else:
            MISHAPS[mishap]()
            if len(sys.argv) > 3:
                fit(FitOptions(**json.loads(sys.argv[3]), output=folder), print)
            else:
                resume(folder, lambda _config: None, print)
    except TrainingError as error:
        print(f"process {os.environ['RANK']}: {error}", flush=True)
        sys.exit(1)
