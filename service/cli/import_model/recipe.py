"""What becomes of which tensor of a foreign model, as decided from a run of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.cli.import_model.errors import ImportRefused
from service.cli.import_model.foreign import Foreign
from service.cli.import_model.pixels import PixelInput
from service.cli.import_model.reference import Reference
from service.cli.import_model.settings import ImportSettings
from service.cli.import_model.tensors import Source, Tensors

TOKENS = ("cls", "mean")
# The smallest divisor, and the smallest probability, whose logarithm isn't minus infinity.
TINY = float(np.finfo(np.float32).tiny)
Values = dict[str, NDArray[np.float64]]
"""Tensors of a model by name, each [pictures, …]."""


@dataclass(frozen=True)
class Recipe:
    """What becomes of which tensor.

    Attributes:
        pixels: what the model expects of a picture.
        height, width: of its input.
        task: "single_label", "multi_label" or "embedding".
        source: of the logits; None makes embeddings only.
        classes: how many; 0 where there is no source.
        embedding: the tensor of the embedding, [batch, dimension], [batch, tokens, dimension] or
            [batch, dimension, height, width].
        rank: how many dimensions that has.
        token: of [batch, tokens, dimension] the first, "cls", or their "mean".
        dimension: of the embedding.
    """

    pixels: PixelInput
    height: int
    width: int
    task: str
    source: Source | None
    classes: int
    embedding: str
    rank: int
    token: str | None
    dimension: int

    def logits_of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The source's tensor, [pictures, …], as logits [pictures, classes], in numpy."""
        flat: NDArray[np.float64] = values.reshape(len(values), -1)
        if self.source is None or not self.source.probabilities:
            return flat
        logits: NDArray[np.float64] = np.log(np.maximum(flat, TINY))
        if self.task == "multi_label":
            logits -= np.log(np.maximum(1 - flat, TINY))
        return logits

    def embedding_of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The embedding's tensor, [pictures, …], as unit-length vectors [pictures, dimension], in numpy."""
        pooled = values
        if self.rank == 4:
            pooled = values.mean(axis=(2, 3))
        elif self.rank == 3:
            pooled = values[:, 0] if self.token == TOKENS[0] else values.mean(axis=1)
        vectors: NDArray[np.float64] = pooled / np.maximum(
            np.linalg.norm(pooled, axis=1, keepdims=True), np.finfo(np.float64).tiny
        )
        return vectors


def decide(
    settings: ImportSettings,
    foreign: Foreign,
    taken: tuple[PixelInput, int, int],
    inputs: NDArray[np.float32],
) -> tuple[Recipe, Values]:
    """Choose the tensors, and run the model to see what they hold.

    Args:
        settings: what was asked for.
        foreign: the model.
        taken: what it expects of a picture, its input's height and width.
        inputs: [pictures, …], what it gets.

    Returns:
        The recipe, and the tensors that it names.

    Raises:
        ImportRefused: a tensor isn't there, can't be told, or doesn't hold what it should.
    """
    source, embedding = _choose(settings, Tensors(foreign))
    wanted = [embedding, *(() if source is None else (source.tensor, source.output))]
    values = Reference(foreign, wanted).run(inputs)
    _check_finite(foreign, values)
    classes = 0 if source is None else _classes(settings, source, values)
    _check_embedding(settings, embedding, values)
    task = "embedding" if source is None else settings.task or source.task
    shape = values[embedding].shape
    dimension = shape[-1 if len(shape) == 3 else 1]
    return Recipe(*taken, task, source, classes, embedding, len(shape), settings.token, dimension), values


def _choose(settings: ImportSettings, tensors: Tensors) -> tuple[Source | None, str]:
    if settings.embedding_only:
        name = settings.embedding or tensors.only_output("--embedding")
        return None, tensors.check("--embedding", name)
    source = tensors.logits(settings.logits, settings.probabilities, settings.embedding)
    if settings.embedding is not None:
        return source, tensors.check("--embedding", settings.embedding)
    return source, tensors.before_last_linear(source.tensor)


def _check_finite(foreign: Foreign, values: Values) -> None:
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise ImportRefused(
                f"{foreign.file}: {name!r} has values that aren't finite for ordinary pictures; are --scale, "
                "--mean and --std those that it was trained with?"
            )


def _check_embedding(settings: ImportSettings, name: str, values: Values) -> None:
    shape = ["pictures", *values[name].shape[1:]]
    if values[name].ndim not in (2, 3, 4):
        raise ImportRefused(
            f"the embedding's tensor {name!r} is {shape}; expected [pictures, dimension], [pictures, tokens, "
            "dimension] or [pictures, channels, height, width]"
        )
    if (values[name].ndim == 3) == (settings.token is None):
        expected = "say which token with --token cls or --token mean"
        if settings.token is not None:
            expected = "--token is for [pictures, tokens, dimension]"
        raise ImportRefused(f"the embedding's tensor {name!r} is {shape}; {expected}")


def _classes(settings: ImportSettings, source: Source, values: Values) -> int:
    array = values[source.tensor]
    classes = int(array[0].size)
    if array.ndim < 2 or classes != max(array.shape[1:]):
        raise ImportRefused(
            f"the logits' tensor {source.tensor!r} is {['pictures', *array.shape[1:]]}; expected [pictures, "
            "classes]; name another one with --logits or --probabilities"
        )
    flat = array.reshape(len(array), classes)
    likely = bool((flat >= 0).all() and (flat <= 1).all())
    if source.probabilities and not likely:
        raise ImportRefused(
            f"--probabilities {source.tensor!r} has values from {flat.min():.3g} to {flat.max():.3g}; "
            "expected 0 to 1; name logits with --logits"
        )
    guessed = not source.probabilities and settings.logits is None
    if guessed and likely and classes > 1 and bool(np.allclose(flat.sum(axis=1), 1, atol=1e-3)):
        raise ImportRefused(
            f"the output {source.tensor!r} looks like probabilities: its values sum to 1 for every picture. "
            f"Say --probabilities {source.tensor} (they become logits again by their logarithm), or --logits "
            f"{source.tensor} if they really are logits"
        )
    return classes
