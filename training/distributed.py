"""The processes that learn together, as torchrun starts them; most often there is one."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn

from training.errors import Interrupted, RunError, SettingError, TrainingError

T = TypeVar("T")

# Of one process for another, in everything that they do at the same time: a step, a check, scores.
STEP_TIMEOUT = timedelta(minutes=10)
# While the first one works alone: it looks at every image, or fits the temperature.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class World:
    """Which of the processes this is.

    What exchanges something is called by all processes, or none.

    Attributes:
        rank: from 0; 0 writes and speaks for all.
        size: how many there are.
        local_rank: among those of this machine, which is its GPU's number.
        patient: the same processes, waiting for each other for `PATIENCE`.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    patient: "dist.ProcessGroup | None" = field(default=None, repr=False, compare=False)

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
        dist.broadcast_object_list(answer, src=0, group=self.patient)
        if answer[1] is not None:
            raise answer[1]
        made: T = answer[0]
        return made

    def highest(self, number: int) -> int:
        """Of the numbers that the processes have."""
        if self.size == 1:
            return number
        highest = torch.tensor(number)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return int(highest)

    def align(self, module: nn.Module) -> None:
        """Give the first process's buffers to all: each has its own statistics of batch normalisation.

        Parameters are the same already.
        """
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


def gathered(mine: Sequence[T], processes: int) -> list[T]:
    """What each process made of its batches → of all batches, as one process alone would have it.

    In its order, too: what is then added up is the same to the last bit, however many processes there are.
    All of them call it and get everything.

    Args:
        mine: an item for each batch of `data.Batches`, which deals whole batches in turn.
        processes: that share them; a single one exchanges nothing.
    """
    if processes == 1:
        return list(mine)
    parts: list[list[T]] = [[] for _ in range(processes)]
    dist.all_gather_object(parts, list(mine))
    batches = sum(len(part) for part in parts)
    return [parts[number % processes][number // processes] for number in range(batches)]


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, until the end of the block; alone there is nothing to join.

    Where one of them dies, or doesn't answer for `STEP_TIMEOUT`, the others end too.

    Args:
        device: 'cpu' (gloo), 'cuda' (nccl, and gloo for what isn't on a GPU) or 'auto'.

    Raises:
        SettingError: there are more processes than GPUs.
        RunError: another process is gone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local_rank >= torch.cuda.device_count():
            raise SettingError(
                f"process {local_rank} of this machine finds {torch.cuda.device_count()} GPUs; "
                "expected torchrun --nproc-per-node of at most as many"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=STEP_TIMEOUT)
    try:
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
        try:
            yield World(rank, size, local_rank, patient)
        except Interrupted:
            # All of them were. The first may still write, and torchrun ends it where another leaves.
            dist.barrier(group=patient)
            raise
        # Who leaves first would break the connections of who still waits for its last message.
        dist.barrier(group=patient)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            "another process of this run is gone, or hasn't answered for "
            f"{STEP_TIMEOUT.total_seconds():g} s, so this one ends too ({reason}); "
            "fovea-train fit --resume goes on from the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()
