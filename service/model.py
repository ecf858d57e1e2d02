"""One loaded model: its sessions, its batcher and its door."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.admission import Admission, Load
from service.batching import DynamicBatcher, Take
from service.config import Config
from service.decoding import attempted
from service.errors import InferenceFailed, NoClasses, RequestError
from service.forecast import Forecast
from service.latency import LatencyTable
from service.manifest import Manifest
from service.metrics import Metrics
from service.model_settings import ModelSettings
from service.postprocess import top_k
from service.preprocess import Preprocessing
from service.session import ModelSession, Outputs, open_sessions
from service.workers import NICENESS, WorkerPool


class Input(NamedTuple):
    """What the batcher gets of a decoded image.

    Attributes:
        pixels: uint8 [height, width, 3].
        top_k: how many classes are wanted; 0 for none.
    """

    pixels: NDArray[np.uint8]
    top_k: int


class Undecoded(NamedTuple):
    """What it gets of one that the thread of its run decodes.

    Attributes:
        decode: gives the pixels, as `Input` has them, or raises.
        top_k: as `Input` has it.
    """

    decode: Callable[[], NDArray[np.uint8]]
    top_k: int


class Prediction(NamedTuple):
    """What the model says of one image.

    Attributes:
        logits: float32 [classes]; [0] of a model without classes.
        embedding: float32 [embedding_dimension], L2-normalised.
        classes: best first, at least as many as were asked for, each its place in labels and logits.
        probabilities: of `classes`, 0 to 1.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    classes: Sequence[int]
    probabilities: Sequence[float]


class Model:
    """A loaded and warm model.

    Attributes:
        manifest: what its package says.
        preprocessing: how an image becomes its input.
        fingerprint: names the package and the precision; embeddings of another one don't compare.
        execution_provider, precision: what really runs.
        max_batch_size: images in one run at most.
        batch_sizes: of the runs, ascending; others are padded to the next.
        instances: runs at the same time.
        devices: the GPUs' numbers; 0 on a CPU.
        default_timeout_ms: the deadline of calls and messages that set none.
        admission: the door that a request goes through first.
        metrics: of this model.
        batcher: takes `Input` and `Undecoded`, and gives `Prediction`.
    """

    def __init__(self, manifest: Manifest, config: Config, settings: ModelSettings, metrics: Metrics) -> None:
        """Load and warm up; takes seconds, so call it from a worker thread.

        Args:
            manifest: of its package.
            config: the server's settings.
            settings: the model's own, its threads decided.
            metrics: are told what it does.

        Raises:
            StartError: the package or the execution provider can't be used.
        """
        started = time.perf_counter()
        self._sessions = open_sessions(manifest, settings)
        session = self._sessions[0]
        warm_s = [each.warm_up() for each in self._sessions]
        self._threads = [
            WorkerPool(f"inference-{manifest.name}-{number}", threads=1, capacity=1, niceness=NICENESS)
            for number in range(len(self._sessions))
        ]
        self.metrics = metrics.of_model(manifest.name)
        self.manifest = manifest
        self.preprocessing = Preprocessing.of(manifest)
        crop = (manifest.input_height, manifest.input_width)
        self._as_is_size = crop if min(crop) == manifest.resize_short_side else None
        self.execution_provider = session.execution_provider
        self.precision = session.precision
        self.fingerprint = manifest.fingerprint(session.precision)
        self.max_batch_size = session.batch_sizes[-1]
        self.batch_sizes = session.batch_sizes
        self.instances = len(self._sessions)
        self.devices = sorted({each.device for each in self._sessions})
        self.default_timeout_ms = settings.default_timeout_ms
        latency = LatencyTable(warm_s[0], session.batch_sizes)
        forecast = Forecast(latency, self.max_batch_size, len(self._sessions))
        self.admission = Admission(Load(config.queue_capacity, config.max_queued_bytes), forecast)
        self.metrics.queue_depth.set_function(lambda: self.admission.images)
        self.metrics.saturation.set_function(
            lambda: 1000 * forecast.backlog_s(self.admission.images) / self.default_timeout_ms
        )
        self.batcher: DynamicBatcher[Input | Undecoded, Prediction] = DynamicBatcher(
            [self._runner(*instance) for instance in zip(self._sessions, self._threads, strict=True)],
            batch_sizes=session.batch_sizes,
            latency=latency,
            max_queue_delay_ms=settings.max_queue_delay_ms,
            on_wait=self.metrics.queue.observe_many,
            on_run=lambda images, now: forecast.ran(images, now, self.admission.images - images),
        )
        self.load_s = time.perf_counter() - started
        metrics.model_load_duration.labels(manifest.name).set(self.load_s)
        metrics.model_info.labels(
            manifest.name, manifest.version, self.execution_provider, self.precision
        ).set(1)

    def check_classifies(self) -> None:
        """Raises NoClasses where the model only makes embeddings."""
        if self.manifest.logits_name is None:
            raise NoClasses(
                f"model {self.manifest.name!r} (version {self.manifest.version}) has no classes: it only "
                "makes embeddings; call Embed, or name a model that classifies"
            )

    def takes_as_is(self, height: int, width: int) -> bool:
        """Whether pixels of that size are the model's input already: preprocessing keeps every one."""
        return (height, width) == self._as_is_size

    def _runner(
        self, session: ModelSession, thread: WorkerPool
    ) -> Callable[[Take[Input | Undecoded]], Awaitable[Sequence[Prediction | RequestError]]]:
        return lambda take: thread.submit(partial(self._run_blocking, session, take))

    def _run_blocking(
        self, session: ModelSession, take: Take[Input | Undecoded]
    ) -> Sequence[Prediction | RequestError]:
        taken: list[Input | RequestError] = take(_decoded)
        inputs = [one for one in taken if isinstance(one, Input)]
        if len(inputs) == len(taken):
            return self._predict(session, inputs)
        predictions = iter(self._predict(session, inputs))
        return [next(predictions) if isinstance(one, Input) else one for one in taken]

    def _predict(self, session: ModelSession, inputs: Sequence[Input]) -> Sequence[Prediction | RequestError]:
        if not inputs:
            return []
        if len(inputs) == 1:
            batch = inputs[0].pixels[None]
        else:  # as np.stack, at a third of its cost for many small images
            batch = np.concatenate([pixels for pixels, _ in inputs])
            batch = batch.reshape(len(inputs), *inputs[0].pixels.shape)
        started = time.perf_counter()
        outputs = session.run(batch)
        self.metrics.inference.observe(time.perf_counter() - started)
        self.metrics.batch_size.observe(len(batch))
        return self._predictions(outputs, max(k for _, k in inputs))

    def _predictions(self, outputs: Outputs, k: int) -> Sequence[Prediction | RequestError]:
        ranking = top_k(outputs.logits, self.manifest.task, self.manifest.temperature, k)
        predictions = map(Prediction, outputs.logits, outputs.embedding, *ranking)
        if outputs.finite():
            return list(predictions)
        return [
            prediction
            if np.isfinite(prediction.logits).all() and np.isfinite(prediction.embedding).all()
            else InferenceFailed("the model gave values that aren't finite for this image")
            for prediction in predictions
        ]

    async def close(self, timeout_s: float) -> bool:
        """Finish what is queued, then end the threads; whether that was done within the time."""
        self.admission.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self.batcher.close()
        except TimeoutError:
            timeout_s = 0
        ended = [thread.close(timeout_s) for thread in self._threads]
        return all(ended)


def _decoded(value: Input | Undecoded) -> Input | RequestError:
    if isinstance(value, Input):
        return value
    pixels = attempted(value.decode)
    return pixels if isinstance(pixels, RequestError) else Input(pixels, value.top_k)
