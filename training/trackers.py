"""Who is told how a run goes, besides its folder: TensorBoard, MLflow."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from training.config import RunConfig
from training.errors import SettingError

TRACKERS = ("tensorboard", "mlflow")
# A run that goes on keeps its entry there.
_MLFLOW_RUN = "mlflow_run_id"


class Tracker(ABC):
    """Takes numbers, until it is closed."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Keep numbers by name, as they were after `step` steps of the optimizer."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class Trackers(Tracker):
    """Several at once; use it as a context.

    Args:
        names: of `TRACKERS`.
        folder: the run's.
        config: the run's.
        step: what was tracked behind this many steps, by a process that was killed, doesn't count.

    Raises:
        SettingError: a library isn't installed; names the extra that has it.
    """

    def __init__(self, names: Sequence[str], folder: Path, config: RunConfig, step: int) -> None:
        self._trackers = [_KINDS[name](folder, config, step) for name in names]

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Tell all."""
        for tracker in self._trackers:
            tracker.log(values, step)

    def close(self) -> None:
        """Close all, even where one fails."""
        with ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(tracker.close)


def check_trackers(names: Sequence[str]) -> None:
    """Import what they need, so that a run doesn't end before it began.

    Raises:
        SettingError: a name isn't known, or its library isn't installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise SettingError(f"--trackers names {name!r}; expected some of {', '.join(TRACKERS)}, or none")
        _KINDS[name].library()


class TensorBoard(Tracker):
    """Events in the run's folder, `events/`: `tensorboard --logdir runs` shows them."""

    def __init__(self, folder: Path, _config: RunConfig, step: int) -> None:
        self._writer = self.library()(str(folder / "events"), purge_step=step + 1 if step else None)

    @staticmethod
    def library() -> Any:
        """The class that writes events."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SettingError(
                "--trackers tensorboard needs the package tensorboard, which isn't installed: "
                "pip install 'fovea-serving[train]', or --trackers none"
            ) from None
        return SummaryWriter

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow(Tracker):
    """A run of MLflow, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say."""

    def __init__(self, folder: Path, config: RunConfig, _step: int) -> None:
        self._mlflow = self.library()
        kept = folder / _MLFLOW_RUN
        known = kept.read_text(encoding="utf-8").strip() if kept.exists() else None
        run = self._mlflow.start_run(run_id=known, run_name=None if known else folder.name)
        if known is None:
            kept.write_text(run.info.run_id + "\n", encoding="utf-8")
            self._mlflow.log_params(_flat(config))

    @staticmethod
    def library() -> Any:
        """The module."""
        try:
            import mlflow
        except ImportError:
            raise SettingError(
                "--trackers mlflow needs the package mlflow, which isn't installed: "
                "pip install 'fovea-serving[mlflow]'"
            ) from None
        return mlflow

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One metric each."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run there."""
        self._mlflow.end_run()


_KINDS: dict[str, type[TensorBoard] | type[MLflow]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def _flat(config: RunConfig) -> dict[str, object]:
    """section.name → value; a long list of labels is counted."""
    flat = {
        f"{section}.{name}": value
        for section, fields in asdict(config).items()
        for name, value in fields.items()
    }
    flat["data.labels"] = len(config.data.labels)
    return flat
