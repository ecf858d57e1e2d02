"""The thread budget: the cores really there, shared between inference and decoding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from service.config import Config
from service.model_settings import ModelSettings
from service.processor import available_cores

log = structlog.get_logger()

# Above this many threads per core the runs slow one another down.
_MUCH = 2


@dataclass(frozen=True)
class ThreadBudget:
    """How many threads do what.

    Attributes:
        cores: that this process may use: affinity and cgroup quota.
        models: name → its settings, with no 0 left in `intra_op_threads`.
        runs: name → runs at the same time: its instances, on each GPU where it has several.
        decode_threads: for all models together; 0: the threads of the models' runs decode.
    """

    cores: int
    models: Mapping[str, ModelSettings]
    runs: Mapping[str, int]
    decode_threads: int

    @property
    def total(self) -> int:
        """Threads that may be busy at the same time."""
        inference = sum(self.runs[name] * self.models[name].intra_op_threads for name in self.models)
        return inference + self.decode_threads

    def log(self) -> None:
        """One line with every number; where there are far more threads than cores, with what to do about it.

        That is a warning where a setting has made them so many, and not the number of models alone.
        """
        numbers = {
            "cores": self.cores,
            "decode_threads": self.decode_threads,
            "inference_threads": {
                name: {"instances": self.runs[name], "intra_op_threads": settings.intra_op_threads}
                for name, settings in self.models.items()
            },
            "total": self.total,
        }
        if self.total <= _MUCH * max(2, self.cores):
            log.info("thread_budget", **numbers)
        elif lower := self._reducible():
            log.warning(
                "thread_budget",
                **numbers,
                advice=f"more than {_MUCH} threads per core: lower {', '.join(lower)}",
            )
        else:
            log.info(
                "thread_budget",
                **numbers,
                advice="every model has one thread already: models that are busy at the same time slow one "
                "another down; fewer of them (--model) or more cores would not",
            )

    def _reducible(self) -> list[str]:
        """The settings that are above their least, 1."""
        highest = {
            "instances": max((settings.instances for settings in self.models.values()), default=1),
            "intra_op_threads": max((each.intra_op_threads for each in self.models.values()), default=1),
            "decode_threads": self.decode_threads,
        }
        return [f"{name} ({value})" for name, value in highest.items() if value > 1]


def share_threads(
    config: Config, names: Sequence[str], on_gpu: Callable[[ModelSettings], bool], cores: int | None = None
) -> ThreadBudget:
    """Divide the cores among what the configuration leaves open.

    Decoding gets a quarter of the cores, at least one thread, and what inference leaves where GPUs do that;
    none of its own on a single core, where nothing could be done at the same time. The instances of all
    models share the rest, each at least one thread; below 4 cores they share all of them, because a core kept
    for decoding would idle too long.

    Args:
        config: settings; a 0 is decided here.
        names: of the models that are served.
        on_gpu: whether a model with such settings runs on a GPU, where one thread per run is enough.
        cores: to share; those really available by default.
    """
    cores = cores or available_cores()
    models = {name: config.for_model(name) for name in names}
    gpu = {name: on_gpu(settings) for name, settings in models.items()}
    runs = {
        name: settings.instances * (len(settings.devices) if gpu[name] else 1)
        for name, settings in models.items()
    }
    decode_threads = config.decode_threads
    in_runs = config.decoding == "inference" or (
        config.decoding == "auto" and not decode_threads and cores == 1 and not any(gpu.values())
    )
    if in_runs:
        decode_threads = 0
    elif not decode_threads and names and all(gpu.values()):
        decode_threads = max(1, cores - sum(runs.values()))
    elif not decode_threads:
        decode_threads = max(1, cores // 4)
    left = cores if cores < 4 else max(1, cores - decode_threads)
    sharing = sum(runs[name] for name in names if not gpu[name])
    each = max(1, left // max(1, sharing))
    settled = {
        name: replace(settings, intra_op_threads=settings.intra_op_threads or (1 if gpu[name] else each))
        for name, settings in models.items()
    }
    return ThreadBudget(cores, settled, runs, decode_threads)
