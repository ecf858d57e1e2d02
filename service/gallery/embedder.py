"""Images, vectors and stored ids of a request → vectors, by the collection's own model."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from service.errors import (
    InferenceFailed,
    InvalidImage,
    InvalidRequest,
    RequestError,
    VectorMismatch,
    listed,
    shorten,
)
from service.group import Priority
from service.model import Model
from service.pipeline import ImageSource, InferenceRequest, Pipeline
from service.repository import ModelRepository
from service.retrieval.index import CollectionSpec

T = TypeVar("T")
Vector = NDArray[np.float32]
Source = ImageSource | Vector | RequestError
log = structlog.get_logger()
# Of the models that an error lists.
_LISTED_MODELS = 10
# What the pipeline returns in an image's place, and logs by itself.
_IMAGE_ERRORS = (InvalidImage, InferenceFailed)


class Embedder:
    """Makes vectors that a collection takes."""

    def __init__(self, pipeline: Pipeline, repository: ModelRepository) -> None:
        self._pipeline, self._repository = pipeline, repository

    def model_named(self, name: str, version: str) -> Model:
        """The model of that name and version; see `ModelRepository.get`."""
        return self._repository.get(name, version)

    def model_of(self, spec: CollectionSpec) -> Model | None:
        """The loaded model whose vectors the collection takes."""
        return self._repository.by_fingerprint(spec.fingerprint) if spec.fingerprint else None

    async def vectors(
        self,
        spec: CollectionSpec,
        sources: Sequence[Source],
        deadline: float,
        priority: Priority,
        *,
        patient: bool = False,
    ) -> tuple[list[Vector | RequestError], Model | None]:
        """Images embedded, or their errors; vectors and errors stay as they are. And the model, if any.

        A collection that no model made takes no images: each is then its own error.

        Args:
            spec: the collection's.
            sources: in the request's order.
            deadline: loop time, in seconds.
            priority: who goes first.
            patient: wait where there is no room, instead of being refused.

        Raises:
            VectorMismatch: the images are for a model that isn't loaded.
        """
        vectors: dict[int, Vector | RequestError] = {}
        images: dict[int, ImageSource] = {}
        for i, source in enumerate(sources):
            if isinstance(source, RequestError | np.ndarray):
                vectors[i] = source
            elif not spec.fingerprint:  # for good, unlike a model that is only missing here
                vectors[i] = VectorMismatch(
                    f"collection {spec.name} takes its callers' own vectors only, of dimension "
                    f"{spec.dimension}, not images: no model made it"
                )
            else:
                images[i] = source
        model = self._model_for_images(spec) if images else None
        if model is not None:
            found = await self.embed(model, list(images.values()), deadline, priority, patient=patient)
            vectors |= zip(images, found, strict=True)
        return [vectors[i] for i in range(len(sources))], model

    async def embed(
        self,
        model: Model,
        images: Sequence[ImageSource],
        deadline: float,
        priority: Priority,
        *,
        patient: bool = False,
    ) -> list[Vector | RequestError]:
        """Each image's vector, float32 [dimension], or its error; arguments as in `vectors`."""
        infer = self._pipeline.infer_patiently if patient else self._pipeline.infer
        outputs = await infer(InferenceRequest(model, images, deadline, priority=priority))
        return [output if isinstance(output, RequestError) else output.embedding for output in outputs]

    def _model_for_images(self, spec: CollectionSpec) -> Model:
        model = self.model_of(spec)
        if model is None:
            loaded = [
                f"{model.manifest.name} (version {model.manifest.version}, fingerprint {model.fingerprint})"
                for model in self._repository.models
            ]
            raise VectorMismatch(
                f"collection {spec.name} takes vectors of fingerprint {shorten(spec.fingerprint)}, and no "
                f"loaded model makes these from images; serve the version that made the collection, "
                f"re-embed it, or drop it and index again; the models there are: "
                f"{listed(loaded, _LISTED_MODELS)}"
            )
        return model


def check_fingerprint(spec: CollectionSpec, fingerprint: str) -> None:
    """Raises:
    VectorMismatch: the request's vectors come from another model than the collection's.
    """
    if fingerprint and spec.fingerprint and fingerprint != spec.fingerprint:
        raise VectorMismatch(
            f"the vectors' fingerprint is {shorten(fingerprint)}; "
            f"collection {spec.name} takes {shorten(spec.fingerprint)}"
        )


def checked(check: Callable[[T], None], values: Sequence[T | RequestError]) -> list[T | RequestError]:
    """The values, with its error in the place of each that fails the check."""
    results: list[T | RequestError] = []
    for value in values:
        try:
            if not isinstance(value, RequestError):
                check(value)
            results.append(value)
        except (InvalidRequest, VectorMismatch) as error:
            results.append(error)
    return results


def log_errors(event: str, collection: str, results: Sequence[object]) -> None:
    """One line for all that failed for another reason than their image."""
    errors = [
        result
        for result in results
        if isinstance(result, RequestError) and not isinstance(result, _IMAGE_ERRORS)
    ]
    if errors:
        log.warning(event, collection=collection, count=len(errors), first_error=str(errors[0]))
