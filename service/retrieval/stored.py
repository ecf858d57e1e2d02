"""What the record's values mean: between its rows and the collections and items that they are of."""

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import shorten
from service.retrieval.checks import Batch, unpack_attributes
from service.retrieval.index import CollectionSpec, Metric, Storage
from service.retrieval.schema import AttributeType, fits

_NONE = "{}"


def number_type(spec: CollectionSpec) -> str:
    """Of a vector's numbers."""
    return "<f2" if spec.storage is Storage.FLOAT16 else "<f4"


def vector_bytes(spec: CollectionSpec) -> int:
    """Of one vector."""
    return np.dtype(number_type(spec)).itemsize * spec.dimension


def schema_text(spec: CollectionSpec) -> str:
    """The declared attributes as JSON."""
    return json.dumps({name: declared.value for name, declared in spec.attributes.items()})


def spec_of(
    name: str, dimension: int, metric: str, fingerprint: str, attributes: str, storage: str
) -> CollectionSpec:
    """A collection of its columns.

    Raises:
        ValueError: no release wrote them; says what was expected.
    """
    try:
        schema = {key: AttributeType(value) for key, value in unpack_attributes(attributes).items()}
        return CollectionSpec(name, dimension, Metric(metric), fingerprint, schema, Storage(storage))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"collection {shorten(name)}: {error}; expected a metric ({_values(Metric)}), a storage "
            f"({_values(Storage)}) and attributes ({_values(AttributeType)})"
        ) from error


def batch_of(rows: Sequence[tuple[Any, ...]], spec: CollectionSpec) -> tuple[Batch, NDArray[np.int64]]:
    """Items and sequence numbers of rows (id, vector, attributes, sequence), one at least.

    Raises:
        ValueError: a value that no release wrote; says of which item, and what was expected.
    """
    size = vector_bytes(spec)
    for name, blob, attributes, _ in rows:
        if not isinstance(blob, bytes) or len(blob) != size:
            raise ValueError(f"the vector of item {shorten(name)}; expected {size} bytes")
        _check_attributes(name, attributes, spec)
    ids, blobs, texts, sequences = zip(*rows, strict=True)
    numbers = np.frombuffer(b"".join(blobs), number_type(spec)).reshape(len(rows), spec.dimension)
    vectors = numbers.astype(np.float32, copy=False)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"the vector of item {shorten(ids[int(finite.argmin())])}; expected finite numbers")
    # One string for all that have none.
    shared = [_NONE if text == _NONE else text for text in texts]
    return Batch(list(ids), vectors, shared), np.array(sequences, np.int64)


def _check_attributes(name: str, text: str, spec: CollectionSpec) -> None:
    try:
        attributes = unpack_attributes(text)
        for attribute in spec.attributes.keys() & attributes.keys():
            declared = spec.attributes[attribute]
            if not fits(declared, attributes[attribute]):
                raise TypeError(f"{shorten(attribute)} is not {declared.described}")
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"the attributes of item {shorten(name)}: {error}") from error


def _values(kind: type[Enum]) -> str:
    return ", ".join(str(member.value) for member in kind)
