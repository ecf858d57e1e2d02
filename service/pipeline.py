"""The request path: images → decode → preprocess → batch → session → postprocess → reply."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.config import Config
from service.errors import DeadlineExpired, InferenceFailed, InvalidImage, InvalidRequest, RequestError
from service.image import ImageLimits, RawImage, decode_picture, from_raw
from service.metrics import Metrics
from service.postprocess import ClassScore, top_k
from service.preprocess import Preprocessing, preprocess
from service.repository import Model, ModelRepository
from service.session import Outputs
from service.workers import WorkerPool

ImageSource = bytes | RawImage
T = TypeVar("T")


@dataclass(frozen=True)
class Classification:
    """What is on one image.

    Attributes:
        classes: best first.
        logits: float32 [classes].
    """

    classes: list[ClassScore]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Reply(Generic[T]):
    """The answer to a request: for each image, in order, its result or its own error."""

    model: Model
    results: list[T | RequestError]


class Pipeline:
    """Answers requests for classifications and embeddings. Deadlines are loop times, in seconds."""

    def __init__(self, repository: ModelRepository, config: Config, metrics: Metrics) -> None:
        self._repository = repository
        self._metrics = metrics
        self._max_images = config.max_images_per_request
        self._limits = ImageLimits(config.max_message_bytes, config.max_image_pixels)
        # Whatever decodes has been let in by a batcher, so this bound is never met.
        capacity = config.queue_capacity * len(repository.names)
        self._decoders = WorkerPool("decode", config.decode_thread_count, capacity)

    async def classify(
        self,
        images: Sequence[ImageSource],
        model_name: str,
        version: str,
        k: int,
        deadline: float,
        *,
        stream: bool = False,
    ) -> Reply[Classification]:
        """Name what is on each image; `stream` waits for room where a unary call is refused.

        Raises:
            ModelNotFound, InvalidRequest, Overloaded, DeadlineExpired, Unavailable: what concerns the
                whole request.
        """
        model = self._repository.get(model_name, version)
        manifest = model.manifest
        outputs = await self.infer(model, images, deadline, stream=stream)
        return Reply(
            model,
            [
                output
                if isinstance(output, RequestError)
                else Classification(
                    top_k(output.logits, manifest.labels, manifest.task, manifest.temperature, k),
                    output.logits,
                )
                for output in outputs
            ],
        )

    async def embed(
        self,
        images: Sequence[ImageSource],
        model_name: str,
        version: str,
        deadline: float,
        *,
        stream: bool = False,
    ) -> Reply[NDArray[np.float32]]:
        """Turn each image into float32 [embedding_dimension], L2-normalised; errors as in `classify`."""
        model = self._repository.get(model_name, version)
        outputs = await self.infer(model, images, deadline, stream=stream)
        return Reply(
            model,
            [output if isinstance(output, RequestError) else output.embedding for output in outputs],
        )

    async def infer(
        self, model: Model, images: Sequence[ImageSource], deadline: float, *, stream: bool = False
    ) -> list[Outputs | RequestError]:
        """Run a request's images through a model; each one's outputs or its own error, in order."""
        if not 1 <= len(images) <= self._max_images:
            raise InvalidRequest(f"the request has {len(images)} images; expected 1 to {self._max_images}")
        if asyncio.get_running_loop().time() >= deadline:
            raise DeadlineExpired("the deadline had passed before the work began")
        if stream:
            async with model.batcher.admit_stream(len(images), deadline):
                return await self._infer_all(model, images, deadline)
        with model.batcher.admit(len(images)):
            return await self._infer_all(model, images, deadline)

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
                array = await self._decoders.run(lambda: self._prepare(image, model.preprocessing))
        except TimeoutError:
            raise DeadlineExpired("the deadline passed before the image was decoded") from None
        self._metrics.decode.labels(model.manifest.name).observe(time.perf_counter() - started)
        return array

    def _prepare(self, image: ImageSource, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        if isinstance(image, RawImage):
            return preprocess(from_raw(image, self._limits), preprocessing)
        return preprocess(decode_picture(image, self._limits), preprocessing)

    def close(self) -> None:
        """End the decoding threads."""
        self._decoders.close()
