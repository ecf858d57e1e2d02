"""What each of two processes does that `test_distributed.py` has torchrun start."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from training.engine import Engine
from training.options import FitOptions
from training.train import fit, resume


def learn(work: Path, told: dict[str, Any]) -> None:
    """A whole run, and one that is killed in its second epoch."""
    fit(FitOptions(**told, output=work / "whole"), print)
    go_on = Engine._learn

    def dying(engine: Engine, *arguments: Any) -> None:
        if (engine.epoch, engine.batch) == (2, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        go_on(engine, *arguments)

    # This process won't need the other one again.
    Engine._learn = dying  # type: ignore[method-assign, assignment]  # mypy minds both
    fit(FitOptions(**told, output=work / "killed"), print)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        learn(folder, json.loads(sys.argv[2]))
    else:
        resume(folder / "killed", lambda _config: None, print)
