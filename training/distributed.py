"""The processes that learn together, as torchrun starts them; most often there is one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist

from training.errors import SettingError, TrainingError

T = TypeVar("T")

# The first process validates while the others wait; a large val split takes its time.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """Which of the processes this is.

    Attributes:
        rank: from 0; 0 writes and speaks for all.
        size: how many there are.
        local_rank: among those of this machine, which is its GPU's number.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """'cpu' or 'cuda' → this process's own."""
        return torch.device(kind, self.local_rank) if kind == "cuda" and self.size > 1 else torch.device(kind)

    def shared(self, make: Callable[[], T]) -> T:
        """Make something in the first process only, and give it, or the error, to all.

        Raises:
            TrainingError: what `make` raised.
        """
        if self.size == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except TrainingError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        made: T = answer[0]
        return made


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, until the end of the block; alone there is nothing to join.

    Args:
        device: 'cpu' (gloo), 'cuda' (nccl) or 'auto'.

    Raises:
        SettingError: there are more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if world.local_rank >= torch.cuda.device_count():
            raise SettingError(
                f"process {world.local_rank} of this machine finds {torch.cuda.device_count()} GPUs; "
                "expected torchrun --nproc-per-node of at most as many"
            )
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield world
        # Who leaves first would break the connections of who still waits for its last message.
        dist.barrier()
    finally:
        dist.destroy_process_group()
