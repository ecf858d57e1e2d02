"""The model repository: a folder of packages → loaded, warm models."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.config import Config
from service.errors import (
    ConfigError,
    InvalidRequest,
    ModelNotFound,
    RequestError,
    Unavailable,
    listed,
    shorten,
)
from service.manifest import read_manifest
from service.metrics import Metrics
from service.model import Model
from service.providers import on_gpu
from service.threads import share_threads
from service.workers import NICENESS, WorkerPool


@dataclass(frozen=True)
class Wanted:
    """A model to serve.

    Attributes:
        name: of it.
        folder: of its package, <repository>/<name>/<version>.
    """

    name: str
    folder: Path

    @property
    def version(self) -> str:
        """Its version."""
        return self.folder.name


class ModelRepository:
    """The models of one server, by name; one version of each.

    Attributes:
        default_name: answers requests that name no model; empty if there is no default.
        threads: what each model and the decoding may use.
        sole: the model, once it is loaded, where only one is served.
    """

    def __init__(self, config: Config, metrics: Metrics) -> None:
        """Look which packages there are; `load` loads them.

        Raises:
            ConfigError: there is nothing to serve, or a model that was named isn't there.
        """
        self._config, self._metrics = config, metrics
        there = find_packages(config.model_repository)
        self._wanted = _choose(config, there)
        config.check_models(there)
        self.threads = share_threads(config, self.names, on_gpu)
        self._models: dict[str, Model] = {}
        self.sole: Model | None = None
        # Threads of a session inherit it.
        self._loader = WorkerPool("load", threads=1, capacity=1, niceness=NICENESS)
        self.default_name = config.default_model
        names = [wanted.name for wanted in self._wanted]
        if self.default_name and self.default_name not in names:
            raise ConfigError(
                f"default_model is {self.default_name!r}; expected one of those served: {', '.join(names)}"
            )
        if not self.default_name and len(names) == 1:
            self.default_name = names[0]

    @property
    def names(self) -> list[str]:
        """The models to serve, loaded or not."""
        return [wanted.name for wanted in self._wanted]

    @property
    def models(self) -> list[Model]:
        """Those that are loaded."""
        return list(self._models.values())

    @property
    def loading(self) -> list[Wanted]:
        """Those that aren't loaded yet."""
        return [wanted for wanted in self._wanted if wanted.name not in self._models]

    async def load(self, name: str) -> "tuple[Model, asyncio.Task[None]]":
        """Load one of `names` in a worker thread.

        Returns:
            The model, and the task of its batcher, which should never end before `close`.

        Raises:
            StartError: its package or the execution provider can't be used.
        """
        folder = next(wanted.folder for wanted in self._wanted if wanted.name == name)
        settings = self.threads.models[name]
        model = await self._loader.run(
            lambda: Model(read_manifest(folder), self._config, settings, self._metrics)
        )
        self._models[name] = model
        if len(self._wanted) == 1:
            self.sole = model
        return model, model.batcher.start()

    def get(self, name: str, version: str) -> Model:
        """The model of that name and version; an empty name is the default model, an empty version any.

        Raises:
            ModelNotFound: lists those there are.
            InvalidRequest: no name was given and there is no default.
            Unavailable: it is still loading.
        """
        name = name or self.default_name
        model = self._models.get(name)
        if model is None:
            raise self._not_loaded(name)
        if version and version != model.manifest.version:
            raise ModelNotFound(f"no version {shorten(version)} of model {name!r}; {self._there()}")
        return model

    def _not_loaded(self, name: str) -> RequestError:
        if not name:
            return InvalidRequest(
                "the request names no model, and there is no default: name one, or start the server with "
                f"--default-model; {self._there()}"
            )
        if name not in self.names:
            return ModelNotFound(f"no model {shorten(name)}; {self._there()}")
        return Unavailable(f"model {name!r} is loading; try again later")

    def by_fingerprint(self, fingerprint: str) -> Model | None:
        """The loaded model that makes vectors of that fingerprint."""
        return next((model for model in self._models.values() if model.fingerprint == fingerprint), None)

    def _there(self) -> str:
        models = [f"{wanted.name} (version {wanted.version})" for wanted in self._wanted]
        return f"the models there are: {listed(models)}"

    async def close(self, timeout_s: float) -> bool:
        """Close every model; whether all that ran has ended within the time."""
        closed = await asyncio.gather(*(model.close(timeout_s) for model in self._models.values()))
        return self._loader.close(timeout_s) and all(closed)


def _choose(config: Config, there: Mapping[str, Mapping[int, Path]]) -> list[Wanted]:
    if not there:
        raise ConfigError(
            f"model_repository {config.model_repository}: no model package there; expected "
            "<model>/<version>/manifest.json, as `fovea-train export` writes it"
        )
    if not config.models:
        return [Wanted(name, versions[max(versions)]) for name, versions in sorted(there.items())]
    chosen: dict[str, Wanted] = {}
    for entry in config.models:
        name, _, version = entry.partition(":")
        versions = there.get(name)
        if versions is None:
            raise ConfigError(f"models names {name!r}; the repository has {', '.join(sorted(there))}")
        if version and version not in map(str, versions):
            listed = ", ".join(map(str, sorted(versions)))
            raise ConfigError(f"models names {entry!r}; the versions of {name!r} are {listed}")
        if name in chosen:
            raise ConfigError(f"models names {name!r} twice; expected one version of each model")
        chosen[name] = Wanted(name, versions[int(version) if version else max(versions)])
    return list(chosen.values())


def find_packages(repository: Path) -> Mapping[str, Mapping[int, Path]]:
    """The packages' folders by model and version; other files and folders are passed over."""
    found: dict[str, dict[int, Path]] = {}
    for manifest in repository.glob("*/*/manifest.json"):
        folder = manifest.parent
        if re.fullmatch(r"[1-9][0-9]{0,8}", folder.name) and not folder.parent.name.startswith("."):
            found.setdefault(folder.parent.name, {})[int(folder.name)] = folder
    return found
