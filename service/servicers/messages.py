"""Proto ↔ plain values, for what several servicers share."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import grpc.aio
import structlog
from fovea.v1 import image_pb2, model_pb2, status_pb2

from service.config import Config
from service.errors import RequestError
from service.image import RawImage
from service.interceptors import current_call, status_of
from service.metrics import Metrics
from service.pipeline import ImageSource
from service.repository import Model

log = structlog.get_logger()


def image_source(image: image_pb2.Image) -> ImageSource:
    """The picture's bytes or raw pixels; one without either counts as empty bytes."""
    if image.WhichOneof("source") == "raw":
        return RawImage(image.raw.data, image.raw.height, image.raw.width)
    return image.encoded


def status(error: RequestError) -> status_pb2.Status:
    """One image's, item's, query's or message's error."""
    return status_pb2.Status(code=status_of(error).value[0], message=str(error))


def deadline_of(context: "grpc.aio.ServicerContext[object, object]", config: Config) -> float:
    """The call's deadline as loop time: the caller's, or the default."""
    # Its stub says float; without a deadline it is None.
    remaining: float | None = context.time_remaining()
    if remaining is None:
        remaining = config.default_timeout_ms / 1000
    return asyncio.get_running_loop().time() + remaining


def name_model(model: Model) -> model_pb2.ModelVersion:
    """Who made the reply; the call's metrics are that model's from now on."""
    current_call.get().model = model.manifest.name
    return model_pb2.ModelVersion(name=model.manifest.name, version=model.manifest.version)


def count_images(metrics: Metrics, model: Model, results: Sequence[object]) -> None:
    """Count each image's end by status, and log once for all that failed."""
    errors = [result for result in results if isinstance(result, RequestError)]
    codes = Counter(
        status_of(result).name if isinstance(result, RequestError) else "OK" for result in results
    )
    for code, images in codes.items():
        metrics.images.labels(model.manifest.name, code).inc(images)
    if errors:
        log.warning(
            "images_failed", method=current_call.get().method, images=len(errors), first_error=str(errors[0])
        )
