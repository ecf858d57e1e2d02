"""The network of a run, with a checkpoint's weights."""

from dataclasses import dataclass
from pathlib import Path

from training.checkpoint import Checkpoint, load_checkpoint
from training.config import RunConfig, read_config
from training.losses import CLASSIFICATION_LOSSES
from training.models import Classifier, architecture
from training.models.heads import with_embedding
from training.weights import load_weights


@dataclass(frozen=True, eq=False)
class RunModel:
    """What was trained.

    Attributes:
        config: the run's.
        checkpoint: the one whose weights these are.
        model: in evaluation mode, on the CPU.
    """

    config: RunConfig
    checkpoint: Checkpoint
    model: Classifier

    @property
    def task(self) -> str:
        """As `task_of`."""
        return task_of(self.config)

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the logits; none for the task 'embedding'."""
        return () if self.task == "embedding" else self.config.data.labels


def task_of(config: RunConfig) -> str:
    """'single_label' or 'multi_label'; 'embedding' where a run's logits are of no use.

    That is what was learned by distances, or is scored on other classes than it learned.
    """
    has_classes = config.embedding.loss in CLASSIFICATION_LOSSES and not config.data.holdout_classes
    return config.data.task if has_classes else "embedding"


def load_run_model(run: Path, checkpoint: str = "best") -> RunModel:
    """Build a run's network and put a checkpoint into it.

    Args:
        run: the folder of `fovea-train fit`.
        checkpoint: 'best' or 'last'.

    Raises:
        RunError: the folder has no configuration of a run.
        WeightsError: the checkpoint is missing or broken.
    """
    config = read_config(run)
    model = architecture(config.model.architecture).build(len(config.data.labels))
    model = with_embedding(model, config.embedding.pooling, config.embedding.projection)
    path = run / "checkpoints" / f"{checkpoint}.pt"
    saved = load_checkpoint(path)
    load_weights(model, saved.model, str(path))
    return RunModel(config, saved, model.eval())
