"""A run, epoch by epoch: learn, score, keep the best, and be ready to go on from any step."""

import math
import time
from pathlib import Path
from typing import Any

from training.checkpoint import Checkpoint, save_checkpoint
from training.config import RunConfig
from training.data import Batches
from training.engine import Engine
from training.errors import Interrupted
from training.finetune import freeze_heads, unfreeze
from training.interrupts import Interrupts
from training.losses import METRIC_LOSSES
from training.objective import Objective
from training.progress import Bar
from training.run_folder import log_epoch, shown_score
from training.trackers import Trackers

# Seldom enough that a GPU, which has to be waited for, doesn't notice.
_STEPS_BETWEEN_LOGS = 50


class RunLoop:
    """Everything between a run's first step and its last.

    Args:
        config: the run's.
        folder: the run's; the first process writes there.
        engine: what learns.
        train, val: batches of the two splits.
    """

    def __init__(self, config: RunConfig, folder: Path, engine: Engine, train: Batches, val: Batches) -> None:
        self._config, self._folder, self._engine = config, folder, engine
        self._train, self._val = train, val
        self._best, self._best_epoch = -math.inf, 0
        self._stale = 0
        self._thawed = False
        self._seconds = self._epoch_seconds = 0.0
        self._epoch_rate = 0.0
        self._since = time.monotonic()
        self._logged = (0.0, 0.0)

    @property
    def seconds(self) -> float:
        """Spent in the loop, by all processes that went on with the run."""
        return self._seconds

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from last.pt."""
        progress = checkpoint.progress
        self._engine.restore(progress["engine"], checkpoint.model)
        self._best, self._best_epoch = progress["best"], progress["best_epoch"]
        self._stale = progress["stale"]
        self._seconds, self._epoch_seconds = progress["seconds"], progress["epoch_seconds"]
        self._epoch_rate = progress["epoch_rate"]
        # Runs that an older version started don't have it.
        self._logged = progress.get("logged", self._logged)

    def run(self) -> None:
        """The rest of the run, to its last epoch or until the score no longer rises.

        Raises:
            Interrupted: by Ctrl-C or SIGTERM; last.pt is up to date.
            TrainingDiverged: the loss is no number any more.
        """
        told, engine, world = self._config.optimization, self._engine, self._engine.world
        names = self._config.run.trackers if world.first else ()
        total = told.epochs * self._config.data.train_images
        self._since = time.monotonic()
        with (
            Trackers(names, self._folder, self._config, engine.step) as trackers,
            Interrupts(patient=world.size > 1) as interrupts,
            Bar(total, "training", done=self._images_done(), shown=world.first) as bar,
        ):
            while engine.epoch <= told.epochs and not self._tired():
                self._epoch(trackers, interrupts, bar)
            if engine.epoch <= told.epochs:
                since = f"{self._stale} epoch{'s' * (self._stale != 1)}"
                bar.line(f"stopped: val hasn't become better for {since}")
        self._train.close()
        self._val.close()

    def _epoch(self, trackers: Trackers, interrupts: Interrupts, bar: Bar) -> None:
        engine, epoch, told = self._engine, self._engine.epoch, self._config.optimization
        thaw = self._config.transfer.unfreeze_at_epoch
        if thaw and epoch >= thaw and not self._thawed:
            self._thaw()
        bar.describe(f"epoch {epoch}/{told.epochs}")
        if not engine.batch:
            self._epoch_rate = engine.learning_rate
        for images in engine.steps(self._train):
            bar.advance(images * engine.world.size)
            if engine.step % _STEPS_BETWEEN_LOGS == 0:
                self._log_step(trackers)
            every = self._config.run.checkpoint_every_steps
            received = self._received(interrupts)
            if received or (every and engine.step % every == 0):
                self._save({}, epoch - 1)
                self._stop_if(received)
        loss, accuracy = engine.check()
        self._tick()
        scores = self._validate()
        selects_by = self._objective.selects_by
        score = scores[selects_by]
        # Of epochs that are equally right the last one: its learning rate has fallen furthest. The loss
        # on few images would choose an early, unsettled one (97 to 98% on the digits' test, not 99%).
        # Where val can't be scored (no class has images both with it and without) the last one counts.
        unscored = math.isnan(score)
        rose = score > self._best or not self._best_epoch
        is_best = unscored or rose or score == self._best
        self._stale = 0 if unscored or rose else self._stale + 1
        if is_best:
            self._best, self._best_epoch = score, epoch
            self._write("best.pt", self._checkpoint(scores, epoch, {}))
        speed = self._config.data.train_images / max(self._epoch_seconds, 1e-9)
        line = {
            "epoch": epoch,
            "step": engine.step,
            "learning_rate": self._epoch_rate,
            "train_loss": loss,
            "train_accuracy": accuracy,
            **{f"val_{name}": value for name, value in scores.items()},
            "train_seconds": round(self._epoch_seconds, 3),
            "train_images_per_second": round(speed, 1),
        }
        if engine.world.first:
            log_epoch(self._folder, line)
            named = {
                name.replace("_", "/", 1) if name.startswith(("train_", "val_")) else name: value
                for name, value in line.items()
                if not math.isnan(value) and name not in ("epoch", "step")
            }
            trackers.log({"epoch": float(epoch), **named}, engine.step)
        bar.line(
            f"epoch {epoch:>{len(str(told.epochs))}}/{told.epochs}  loss {loss:.3f}  "
            f"{'' if math.isnan(accuracy) else f'train {accuracy:.2%}  '}"
            f"val {_shown(selects_by, score)}  {speed:.0f} images/s{_praise(score, is_best, rose)}"
        )
        self._tick()
        self._epoch_seconds = 0.0
        engine.next_epoch()
        self._logged = (0.0, 0.0)
        self._save(scores, epoch)
        self._stop_if(self._received(interrupts))

    def _thaw(self) -> None:
        """Let all learn that the loss can teach."""
        unfreeze(self._engine.model)
        if self._config.embedding.loss in METRIC_LOSSES:
            freeze_heads(self._engine.model)
        self._engine.reconnect()
        self._thawed = True

    def _validate(self) -> dict[str, float]:
        """The same in all processes, each of which has its part of val."""
        engine = self._engine
        engine.world.align(engine.scored_model)
        scores = self._objective.validate(
            engine.scored_model, engine.augmentation.normalization, self._val, engine.device
        )
        # Machines that differ may differ in the last bit, and would part where it decides.
        return engine.world.shared(lambda: scores)

    def _log_step(self, trackers: Trackers) -> None:
        """The mean loss since the last time, and the learning rate."""
        self._engine.check()
        losses, images, _, _ = self._engine.tally.sums()
        before, seen = self._logged
        if images > seen:
            values = {
                "step/loss": (losses - before) / (images - seen),
                "step/learning_rate": self._engine.learning_rate,
            }
            trackers.log(values, self._engine.step)
        self._logged = losses, images

    def _save(self, scores: dict[str, float], epoch: int) -> None:
        """last.pt, from which the run can go on."""
        if self._engine.batch:
            self._engine.check()
        self._tick()
        progress = {
            "engine": self._engine.state(),
            "best": self._best,
            "best_epoch": self._best_epoch,
            "stale": self._stale,
            "seconds": self._seconds,
            "epoch_seconds": self._epoch_seconds,
            "epoch_rate": self._epoch_rate,
            "logged": self._logged,
        }
        self._write("last.pt", self._checkpoint(scores, epoch, progress))

    def _checkpoint(self, scores: dict[str, float], epoch: int, progress: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            model=self._engine.scored_model.state_dict(),
            epoch=epoch,
            metrics=scores,
            step=self._engine.step,
            selects_by=self._objective.selects_by,
            progress=progress,
        )

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        if self._engine.world.first:
            save_checkpoint(self._folder / "checkpoints" / name, checkpoint)

    def _received(self, interrupts: Interrupts) -> int:
        """The signal that any of the processes got, 0 for none."""
        return self._engine.world.highest(interrupts.received or 0)

    def _stop_if(self, received: int) -> None:
        if received:
            raise Interrupted(
                f"stopped after step {self._engine.step}, in epoch {self._engine.epoch} of "
                f"{self._config.optimization.epochs}; to go on from there: "
                f"fovea-train fit --resume {self._folder}",
                received,
            )

    def _tired(self) -> bool:
        patience = self._config.optimization.patience
        return bool(patience) and self._stale >= patience

    def _tick(self) -> None:
        """Count the time since the last tick."""
        now = time.monotonic()
        self._seconds += now - self._since
        self._epoch_seconds += now - self._since
        self._since = now

    def _images_done(self) -> int:
        engine, told = self._engine, self._config.optimization
        inside = engine.batch * told.batch_size * engine.world.size
        return (engine.epoch - 1) * self._config.data.train_images + inside

    @property
    def _objective(self) -> Objective:
        return self._engine.learner.objective


def _shown(name: str, value: float) -> str:
    return f"{value:.2%}" if name == "accuracy" else shown_score(name, {name: value})


def _praise(score: float, is_best: bool, rose: bool) -> str:
    if math.isnan(score) or not is_best:
        return ""
    return "  best so far" if rose else "  as good as the best"
