"""The request path: images → decode → preprocess → batch → session → postprocess → reply."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray

from service.admission import Load
from service.budget import Budget
from service.config import Config
from service.errors import DeadlineExpired, InferenceFailed, InvalidImage, Overloaded, RequestError
from service.image import ImageLimits, RawImage, from_raw, open_image
from service.metrics import Metrics
from service.model import Model
from service.postprocess import ClassScore, top_k
from service.preprocess import Preprocessing, preprocess
from service.session import Outputs
from service.workers import WorkerPool

ImageSource = bytes | RawImage
# The caller's own timer runs out a little before ours: who leaves this close to it wasn't cancelling.
EXPIRED_WITHIN_S = 0.05

log = structlog.get_logger()


@dataclass(frozen=True)
class Classification:
    """What is on one image.

    Attributes:
        classes: best first.
        logits: float32 [classes].
    """

    classes: list[ClassScore]
    logits: NDArray[np.float32]


class Pipeline:
    """Answers with one result per image, or that image's own error, in the request's order.

    Deadlines are loop times, in seconds. `stream` waits for room where a unary call is refused. All
    methods raise Overloaded, DeadlineExpired, InvalidRequest or Unavailable for the whole request.
    """

    def __init__(self, config: Config, metrics: Metrics, code_of: Callable[[RequestError], str]) -> None:
        """Start the decoding threads.

        Args:
            config: limits and threads.
            metrics: are told how every image ended.
            code_of: an error's code, for the metrics.
        """
        self._metrics, self._code_of = metrics, code_of
        self._limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)
        self._decoding_pixels = Budget(config.max_decoding_pixels)
        # The doors bound what is in: this many images per model are never met together.
        self._decoders = WorkerPool("decode", config.decode_thread_count, 1_000_000)

    async def classify(
        self, model: Model, images: Sequence[ImageSource], k: int, deadline: float, *, stream: bool = False
    ) -> list[Classification | RequestError]:
        """Name the `k` likeliest things on each image."""
        rank = partial(
            top_k, labels=model.manifest.labels, task=model.manifest.task,
            temperature=model.manifest.temperature, k=k,
        )  # fmt: skip
        outputs = await self.infer(model, images, deadline, stream=stream)
        return [
            output if isinstance(output, RequestError) else Classification(rank(output.logits), output.logits)
            for output in outputs
        ]

    async def embed(
        self, model: Model, images: Sequence[ImageSource], deadline: float, *, stream: bool = False
    ) -> list[NDArray[np.float32] | RequestError]:
        """Turn each image into float32 [embedding_dimension], L2-normalised."""
        outputs = await self.infer(model, images, deadline, stream=stream)
        return [output if isinstance(output, RequestError) else output.embedding for output in outputs]

    async def infer(
        self, model: Model, images: Sequence[ImageSource], deadline: float, *, stream: bool = False
    ) -> list[Outputs | RequestError]:
        """Run images through a model."""
        load = Load(len(images), sum(_size_bytes(image) for image in images))
        try:
            async with self._admitted(model, load, deadline, stream=stream):
                outputs = await self._infer_all(model, images, deadline)
        except BaseException as error:
            self._count_lost(model, len(images), error, deadline)
            raise
        self._count_ends(model, outputs)
        return outputs

    @asynccontextmanager
    async def _admitted(
        self, model: Model, load: Load, deadline: float, *, stream: bool
    ) -> AsyncIterator[None]:
        if asyncio.get_running_loop().time() >= deadline:
            raise DeadlineExpired("the deadline had passed before the work began")
        if stream:
            async with model.admission.admit_stream(load, deadline):
                yield
        else:
            with model.admission.admit(load):
                yield

    async def _infer_all(
        self, model: Model, images: Sequence[ImageSource], deadline: float
    ) -> list[Outputs | RequestError]:
        if len(images) == 1:
            return [await self._infer_one(model, images[0], deadline)]
        tasks = [asyncio.create_task(self._infer_one(model, image, deadline)) for image in images]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _infer_one(self, model: Model, image: ImageSource, deadline: float) -> Outputs | RequestError:
        try:
            array = await self._decode(model, image, deadline)
            outputs = await model.batcher.submit(array, deadline)
            if not outputs.finite():
                raise InferenceFailed("the model gave values that aren't finite for this image")
            return outputs
        except (InvalidImage, InferenceFailed) as error:
            return error

    async def _decode(self, model: Model, image: ImageSource, deadline: float) -> NDArray[np.uint8]:
        started = time.perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                array = await self._decoders.run(partial(self._prepare, image, model.preprocessing))
        except TimeoutError:
            raise DeadlineExpired("the deadline passed before the image was decoded") from None
        except RequestError:
            raise
        except Exception as error:  # the decoder's own fault: this image fails, and nothing else
            log.error("decode_crashed", exc_info=error)
            raise InferenceFailed(f"the server failed to decode the image: {type(error).__name__}") from error
        self._metrics.decode.labels(model.manifest.name).observe(time.perf_counter() - started)
        return array

    def _prepare(self, image: ImageSource, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        if isinstance(image, RawImage):
            return preprocess(from_raw(image, self._limits), preprocessing)
        opened = open_image(image, self._limits)
        with self._decoding_pixels.hold(opened.pixels):
            return preprocess(opened.decode(), preprocessing)

    def _count_ends(self, model: Model, outputs: Sequence[Outputs | RequestError]) -> None:
        errors = [output for output in outputs if isinstance(output, RequestError)]
        codes = Counter(self._code_of(error) for error in errors)
        codes["OK"] = len(outputs) - len(errors)
        for code, images in codes.items():
            self._metrics.images.labels(model.manifest.name, code).inc(images)
        if errors:
            log.warning(
                "images_failed", model=model.manifest.name, images=len(errors), first_error=str(errors[0])
            )

    def _count_lost(self, model: Model, images: int, error: BaseException, deadline: float) -> None:
        """The request ends without an answer, so that all its images are lost."""
        name = model.manifest.name
        if isinstance(error, asyncio.CancelledError):
            late = asyncio.get_running_loop().time() >= deadline - EXPIRED_WITHIN_S
            error = DeadlineExpired("") if late else error
        code = self._code_of(error) if isinstance(error, RequestError) else "CANCELLED"
        self._metrics.images.labels(name, code).inc(images)
        reasons = {Overloaded: "full", DeadlineExpired: "expired", asyncio.CancelledError: "cancelled"}
        if type(error) in reasons:
            self._metrics.shed.labels(name, reasons[type(error)]).inc(images)

    def close(self, timeout_s: float) -> bool:
        """End the decoding threads; whether they ended within the time."""
        return self._decoders.close(timeout_s)


def _size_bytes(image: ImageSource) -> int:
    return len(image.data if isinstance(image, RawImage) else image)
