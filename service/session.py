"""One model in ONNX Runtime: choose, load, check against the manifest, warm up, run."""

import hashlib
import math
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from service.compile_cache import compile_cache
from service.engines.plan import SessionPlan
from service.engines.runs import BoundRuns, PlainRuns, Runs
from service.errors import ConfigError, InferenceFailed, ManifestError, ProviderUnavailable, StartError
from service.manifest import Manifest, Variant
from service.model_settings import ModelSettings
from service.providers import GPU_PROVIDERS, ORDER, candidates, create_session, missing
from service.variants import Choice, choices

log = structlog.get_logger()

# OpenVINO compiles kernels at the first run of a shape. Up to here every size gets its own; above, padding
# to powers of two keeps the warm-up short.
_MAX_EXACT_SIZE = 16
# Of so many the second slowest counts: one that was interrupted by something else says nothing.
_TIMED_RUNS = 5
_TIMING_BUDGET_S = 0.5


@dataclass(frozen=True)
class Outputs:
    """What the model says of a batch, or of one image of it (then without the first axis).

    Attributes:
        logits: float32 [batch, classes]; [batch, 0] of a model without classes.
        embedding: float32 [batch, embedding_dimension], L2-normalised.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]

    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return all(
            # The sum of the squares sees every value at once; where it overflows, each is looked at.
            math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())
            for values in (self.logits, self.embedding)
        )

    def split(self) -> "list[Outputs]":
        """One per image, in order."""
        return [Outputs(*pair) for pair in zip(self.logits, self.embedding, strict=True)]


class ModelSession:
    """A loaded model; `run` may be called from one thread at a time.

    Attributes:
        execution_provider: what really runs it, as ONNX Runtime names it.
        precision: of the variant that was loaded.
        device: the GPU's number; 0 on a CPU.
        batch_sizes: ascending; what runs without paying for a new shape. The last is the largest.
    """

    def __init__(self, manifest: Manifest, plan: SessionPlan) -> None:
        """Load a variant.

        Raises:
            ManifestError: the file can't be loaded, or its inputs and outputs aren't the manifest's.
            ProviderUnavailable: names what is missing.
        """
        self._manifest = manifest
        self._session = create_session(plan)
        self.execution_provider: str = self._session.get_providers()[0]
        self.precision, self.device, self.batch_sizes = plan.precision, plan.device, plan.batch_sizes
        self._provider = plan.provider
        self._input_shape = plan.image_shape
        self._outputs: dict[str, tuple[int, ...]] = {manifest.embedding_name: (manifest.embedding_dimension,)}
        if manifest.logits_name is not None:
            self._outputs[manifest.logits_name] = (len(manifest.labels),)
        self._check_graph()
        self._runs: Runs
        if plan.provider in GPU_PROVIDERS:
            graphs = plan.settings.cuda_graphs
            self._runs = BoundRuns(
                self._session, plan.input_name, self._outputs, device=plan.device, graphs=graphs
            )
        else:
            self._runs = PlainRuns(self._session, plan.input_name, list(self._outputs))

    def _check_graph(self) -> None:
        inputs = {node.name: (node.type, tuple(node.shape[1:])) for node in self._session.get_inputs()}
        expected = {self._manifest.input_name: ("tensor(uint8)", self._input_shape)}
        if inputs != expected:
            raise ManifestError(
                f"{self._manifest.folder}: the graph's inputs are {inputs}; expected {expected}"
            )
        outputs = {node.name: node.shape[-1] for node in self._session.get_outputs()}
        for name, (dimension,) in self._outputs.items():
            if outputs.get(name) != dimension:
                raise ManifestError(
                    f"{self._manifest.folder}: the graph's outputs are {outputs}; "
                    f"expected {name!r} with {dimension} values per image"
                )

    def warm_up(self) -> dict[int, float]:
        """Run every batch size, so that no request pays for it.

        The CPU provider pays nothing for a new shape: there only the powers of two and the largest run.

        Returns:
            Batch size → seconds of a warm run, a slow one of a few.

        Raises:
            ManifestError: a run fails, or its outputs aren't what the manifest says.
        """
        sizes = _powers_of_two(self.batch_sizes[-1]) if self._provider == "cpu" else self.batch_sizes
        return {size: self._time(size) for size in sizes}

    def _time(self, size: int) -> float:
        batch = np.zeros((size, *self._input_shape), np.uint8)
        taken: list[float] = []
        try:
            self.run(batch)
            while len(taken) < _TIMED_RUNS and sum(taken) < _TIMING_BUDGET_S:
                started = time.perf_counter()
                self.run(batch)
                taken.append(time.perf_counter() - started)
        except InferenceFailed as error:
            raise ManifestError(f"{self._manifest.folder}: warm-up with {size} images: {error}") from error
        return sorted(taken)[-2] if len(taken) == _TIMED_RUNS else max(taken)

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Run one batch, padded to the next of `batch_sizes`.

        Args:
            batch: uint8 [batch, height, width, 3], RGB; 1 to the last of `batch_sizes` images.

        Returns:
            As many rows as images.

        Raises:
            InferenceFailed: the runtime's own error, or outputs of another shape than promised.
        """
        count = len(batch)
        if not 1 <= count <= self.batch_sizes[-1]:
            raise InferenceFailed(f"a batch of {count} images; expected 1 to {self.batch_sizes[-1]}")
        size = self.batch_sizes[bisect_left(self.batch_sizes, count)]
        if size != count:
            padded = np.zeros((size, *self._input_shape), np.uint8)
            padded[:count] = batch
            batch = padded
        try:
            arrays = self._runs(batch)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise InferenceFailed(f"the model's run failed: {error}") from error
        shapes = [array.shape for array in arrays]
        expected = [(size, *shape) for shape in self._outputs.values()]
        if shapes != expected:
            raise InferenceFailed(f"the model gave outputs of shapes {shapes}; expected {expected}")
        embedding, *logits = (array[:count].astype(np.float32, copy=False) for array in arrays)
        return Outputs(logits[0] if logits else np.empty((count, 0), np.float32), embedding)


def open_sessions(manifest: Manifest, settings: ModelSettings) -> list[ModelSession]:
    """Load a model on the best provider and variant that its settings allow.

    With `auto`, what is installed but can't run this model is passed over with a line in the log.

    Args:
        manifest: of the package.
        settings: of the model.

    Returns:
        One session per instance; on GPUs as many on each device.

    Raises:
        ProviderUnavailable: names what is missing.
        ManifestError: a file isn't the manifest's (digest, inputs, outputs) or can't be loaded.
        ConfigError: the compile cache can't be used.
    """
    refused: list[str] = []
    if settings.execution_provider == "auto" and settings.precision != "auto":
        # Another provider may run that precision: say what keeps it away.
        refused = [f"{provider}: {lacking}" for provider in ORDER if (lacking := missing(provider))]
    for provider in candidates(settings.execution_provider):
        try:
            offered = list(choices(manifest, provider, settings.precision))
        except ProviderUnavailable as error:
            if settings.execution_provider != "auto":
                raise
            refused.append(str(error))
            continue
        for choice in offered:
            named = "auto" not in (settings.execution_provider, settings.precision)
            _check_digest(manifest, choice.variant)  # a file that was tampered with is no reason to look on
            try:
                if choice.refused:
                    raise ProviderUnavailable(choice.refused)
                return _open(manifest, settings, provider, choice)
            except ConfigError:
                raise  # a wrong setting is no reason for a slower provider
            except StartError as error:
                last_resort = provider == "cpu" and choice is offered[-1]
                if named or (last_resort and not isinstance(error, ProviderUnavailable)):
                    raise
                refused.append(f"{provider} {choice.variant.precision}: {error}")
                say = log.info if choice.refused else log.warning
                say(
                    "variant_passed_over", model=manifest.name, provider=provider,
                    precision=choice.variant.precision, reason=str(error),
                )  # fmt: skip
    raise ProviderUnavailable(
        f"{manifest.folder}: nothing runs it with execution_provider {settings.execution_provider!r} and "
        f"precision {settings.precision!r}: {'; '.join(refused)}"
    )


def _open(manifest: Manifest, settings: ModelSettings, provider: str, choice: Choice) -> list[ModelSession]:
    variant = choice.variant
    path = manifest.folder / variant.file
    if choice.warning:
        log.warning(
            "precision_warning", model=manifest.name, precision=variant.precision, reason=choice.warning
        )
    compiles = provider in ("openvino", "tensorrt")
    cache = (
        compile_cache(settings.compile_cache, provider, variant.precision, variant.sha256)
        if compiles
        else None
    )
    image_shape = (manifest.input_height, manifest.input_width, 3)
    sizes = batch_sizes(provider, settings.max_batch_size)
    devices: Sequence[int] = settings.devices if provider in GPU_PROVIDERS else (0,)
    return [
        ModelSession(
            manifest,
            SessionPlan(
                path, provider, variant.precision, manifest.input_name, image_shape, sizes, settings, device,
                cache,
            ),
        )
        for device in devices
        for _ in range(settings.instances)
    ]  # fmt: skip


def _check_digest(manifest: Manifest, variant: Variant) -> None:
    path = manifest.folder / variant.file
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror}") from error
    if digest != variant.sha256:
        raise ManifestError(f"{path}: its sha256 is {digest}; the manifest says {variant.sha256}")


def batch_sizes(provider: str, max_batch_size: int) -> tuple[int, ...]:
    """The sizes that a provider is warmed for and runs; others are padded to the next."""
    if provider == "cpu" or (provider == "openvino" and max_batch_size <= _MAX_EXACT_SIZE):
        return tuple(range(1, max_batch_size + 1))
    return _powers_of_two(max_batch_size)


def _powers_of_two(largest: int) -> tuple[int, ...]:
    """Those up to `largest`, and that."""
    return tuple(sorted({1 << power for power in range(largest.bit_length())} | {largest}))
