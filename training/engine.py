"""The training loop: batches → steps, one after the other, from wherever a checkpoint left off."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from training.augment import Augmentation
from training.data import Batches
from training.distributed import World
from training.ema import AveragedWeights
from training.epoch_tally import EpochTally
from training.errors import TrainingDiverged
from training.finetune import train_mode
from training.learner import Learner
from training.models import Classifier
from training.seeds import seed_step


@dataclass(frozen=True)
class Stepping:
    """How steps are made.

    Attributes:
        seed: of everything random.
        accumulate: batches a step; the last step of an epoch may have fewer.
        clip_norm: gradients are scaled down to this norm; 0 for never.
        bf16: whether the forward pass runs under autocast.
        channels_last: whether the network's input lies channels last, as its weights do.
        single_label: whether a training accuracy makes sense.
    """

    seed: int = 0
    accumulate: int = 1
    clip_norm: float = 0.0
    bf16: bool = False
    channels_last: bool = False
    single_label: bool = True


class Engine:
    """A network in training, and everything that changes with it.

    Args:
        learner: the network with its objective, on the device.
        augmentation: pixels and targets → inputs and targets, on the device.
        optimizer, scheduler: of the learner's parameters; the scheduler moves on after each step.
        stepping: how steps are made.
        device: of the network.
        world: the processes that learn together.
        ema: the running average of the weights, if any.

    Attributes:
        epoch: the one that is being learned, from 1.
        batch: batches of it that are done.
        step: optimizer steps done in the whole run.
        tally: of the epoch so far.
    """

    def __init__(
        self,
        learner: Learner,
        augmentation: Augmentation,
        optimizer: optim.Optimizer,
        scheduler: optim.lr_scheduler.LRScheduler,
        stepping: Stepping,
        device: torch.device,
        *,
        world: World | None = None,
        ema: AveragedWeights | None = None,
    ) -> None:
        self.learner, self.augmentation = learner, augmentation
        self.optimizer, self.scheduler, self.stepping = optimizer, scheduler, stepping
        self.device, self.world, self.ema = device, world or World(), ema
        self.epoch, self.batch, self.step = 1, 0, 0
        self.tally = EpochTally(device)
        self._called = self._distributed()

    @property
    def model(self) -> Classifier:
        """The network that is trained."""
        return self.learner.model

    @property
    def scored_model(self) -> Classifier:
        """The network that is validated and exported: with the averaged weights, where there are any."""
        return self.ema.model if self.ema else self.model

    @property
    def learning_rate(self) -> float:
        """Of the next step; the highest, where stages have their own."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def steps(self, batches: Batches) -> Iterator[int]:
        """Learn the rest of an epoch.

        Args:
            batches: of `epoch`; told where to begin.

        Yields:
            After each step of the optimizer, the images it learned from, in this process.

        Raises:
            TrainingDiverged: the loss is infinite or not a number.
        """
        batches.epoch, batches.start_batch = self.epoch, self.batch
        train_mode(self.learner)
        images = 0
        total = len(batches)
        # A checkpoint is only made between steps, so an epoch is entered at a window's beginning.
        for pixels, targets in batches:
            first = self.batch - self.batch % self.stepping.accumulate
            window = min(self.stepping.accumulate, total - first)
            last = self.batch + 1 == first + window
            self._learn(pixels, targets, window, last)
            images += len(pixels)
            self.batch += 1
            if last:
                self._take_step()
                yield images
                images = 0

    def next_epoch(self) -> None:
        """The epoch is done."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.tally = EpochTally(self.device)

    def reconnect(self) -> None:
        """Have the processes share the gradients of what learns now; after something was unfrozen."""
        self._called = self._distributed()

    def check(self) -> tuple[float, float]:
        """Mean loss and accuracy of the epoch so far, over all processes, which all call it.

        The accuracy is nan where there is none.

        Raises:
            TrainingDiverged: the loss isn't finite.
        """
        losses, images, hits, classified = self.tally.sums()
        loss = losses / max(images, 1)
        if not math.isfinite(loss):
            self._diverged(loss)
        return loss, hits / classified if classified else math.nan

    def state(self) -> dict[str, Any]:
        """Everything that `restore` takes; all processes call it."""
        return {
            "weights": self.model.state_dict(),
            "objective": self.learner.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "averaged_steps": self.ema.steps if self.ema else 0,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "tally": self.tally.sums(),
        }

    def restore(self, state: dict[str, Any], scored: dict[str, Tensor]) -> None:
        """Go on from a checkpoint.

        Args:
            state: of `state`.
            scored: the state dict of `scored_model`.
        """
        self.model.load_state_dict(state["weights"])
        self.learner.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.ema:
            self.ema.restore(scored, state["averaged_steps"])
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        if self.world.first:
            self.tally.restore(state["tally"])

    def _learn(self, pixels: Tensor, targets: Tensor, window: int, last: bool) -> None:
        seed_step(self.stepping.seed, self.epoch, self.batch * self.world.size + self.world.rank)
        pixels, targets = (
            pixels.to(self.device, non_blocking=True),
            targets.to(self.device, non_blocking=True),
        )
        inputs, targets = self.augmentation(pixels, targets)
        layout = torch.channels_last if self.stepping.channels_last else torch.contiguous_format
        inputs = inputs.contiguous(memory_format=layout)
        with self._alone(last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.stepping.bf16):
                loss, logits = self._called(inputs, targets)
            # Where reading it costs nothing a loss that is no number never reaches the weights; a GPU would
            # have to be waited for, so there `check` finds it, before a checkpoint is written.
            if self.device.type == "cpu" and not math.isfinite(value := float(loss.detach())):
                self._diverged(value)
            (loss / window).backward()
        self.tally.add(loss, logits if self.stepping.single_label else None, targets)

    def _alone(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Processes exchange gradients once a step, with the last batch's."""
        if isinstance(self._called, DistributedDataParallel) and not last:
            return self._called.no_sync()
        return contextlib.nullcontext()

    def _take_step(self) -> None:
        if self.stepping.clip_norm:
            nn.utils.clip_grad_norm_(self.learner.parameters(), self.stepping.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        if self.ema:
            self.ema.update(self.model)
        self.step += 1

    def _distributed(self) -> nn.Module:
        if self.world.size == 1:
            return self.learner
        devices = [self.world.local_rank] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.learner, device_ids=devices)

    def _diverged(self, loss: float) -> None:
        raise TrainingDiverged(
            f"the loss became {loss} in epoch {self.epoch}, in or before its batch {self.batch + 1}, at "
            f"learning rate {self.learning_rate:.3g}; expected a finite number. Try a lower --learning-rate, "
            "more --warmup-epochs or --clip-norm"
        )
