"""Proto ↔ plain values, for what several servicers share."""

from collections.abc import Sequence, Sized

from fovea.v1 import (
    classification_pb2,
    embedding_pb2,
    image_pb2,
    model_pb2,
    priority_pb2,
    status_pb2,
)

from service.config import Config
from service.errors import InvalidRequest, RequestError
from service.group import Priority
from service.image import RawImage
from service.interceptors import clip, current_call, status_of
from service.model import Model
from service.pipeline import ImageSource

_PRIORITIES = {
    priority_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    priority_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    priority_pb2.PRIORITY_BULK: Priority.BULK,
}


def check_count(what: str, values: Sized, config: Config) -> None:
    """Refuse too many before any of them is translated.

    Raises:
        InvalidRequest: there are none, or more than max_images_per_request.
    """
    if not 1 <= len(values) <= config.max_images_per_request:
        raise InvalidRequest(
            f"the request has {len(values)} {what}; expected 1 to {config.max_images_per_request}"
        )


def image_sources(images: Sequence[image_pb2.Image], config: Config) -> list[ImageSource]:
    """A request's pictures.

    Raises:
        InvalidRequest: there are none, or too many.
    """
    check_count("images", images, config)
    return [image_source(image) for image in images]


def image_source(image: image_pb2.Image) -> ImageSource:
    """The picture's bytes or raw pixels; one without either counts as empty bytes."""
    if image.HasField("raw"):
        raw = image.raw
        return RawImage(raw.data, raw.height, raw.width)
    return image.encoded


def status(error: RequestError) -> status_pb2.Status:
    """One image's, item's, query's or message's error."""
    return status_pb2.Status(code=status_of(error).value[0], message=clip(str(error)))


def name_model(model: Model) -> None:
    """The call's metrics are that model's from now on."""
    current_call.get().model = model.manifest.name


def set_maker(version: model_pb2.ModelVersion, model: Model) -> None:
    """Say in a reply who made it."""
    version.name, version.version = model.manifest.name, model.manifest.version


def priority_of(request: classification_pb2.ClassifyRequest | embedding_pb2.EmbedRequest) -> Priority:
    """Who the caller says goes first.

    Raises:
        InvalidRequest: no such priority.
    """
    try:
        return _PRIORITIES[request.priority]
    except KeyError:
        names = ", ".join(priority_pb2.Priority.keys()[1:])
        raise InvalidRequest(f"priority is {request.priority}; expected one of {names}") from None
