"""torch.compile, where it works."""

import torch
from torch import nn

from training.errors import SettingError


def compile_learner(learner: nn.Module, device: torch.device) -> None:
    """Have a module's forward compiled when it is first called.

    Raises:
        SettingError: torch.compile doesn't work here; says why.
    """
    # A module's own failure would come in the middle of the first step, and long.
    check_compiler(device)
    learner.compile()


def check_compiler(device: torch.device) -> None:
    """Compile something small.

    Raises:
        SettingError: torch.compile doesn't work here; says why.
    """
    try:
        torch.compile(_anything)(torch.ones(8, device=device))
    except Exception as error:  # the compilers have their own, of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingError(
            f"--compile: torch.compile doesn't work here: {reason}; install a C++ compiler (g++), for a GPU "
            "Triton too, or leave --compile out"
        ) from error


def _anything(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) * 2 + 1
