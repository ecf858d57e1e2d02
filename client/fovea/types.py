"""What calls take and return. Values are frozen; arrays are float32 and the caller's own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fovea.errors import FoveaError

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[np.uint8]
"""A file's path, a file's bytes (in any of their types), or decoded pixels: uint8 RGB [height, width, 3]."""

Priority = Literal["interactive", "bulk"]
"""Who goes first where work waits: somebody who waits for the answer, or work that only has to be done."""

AttributeValue = str | int | float | bool

AttributeType = Literal["string", "int", "float", "bool"]
"""Of a declared attribute: an int has 64 bits; a float is finite and takes ints too."""


@dataclass(frozen=True)
class ClassScore:
    """One class of one image.

    Attributes:
        label: the class's name.
        index: its position in the model's labels and logits.
        probability: 0 to 1; softmax over the classes (sigmoid for a multi-label model).
    """

    label: str
    index: int
    probability: float


@dataclass(frozen=True, eq=False)
class Classification:
    """What is on one image.

    Attributes:
        classes: the best classes, highest probability first; at least one.
        logits: float32 [classes], before temperature and softmax; None unless asked for.
        model: name of the model that said so.
        version: its version.
    """

    classes: tuple[ClassScore, ...]
    logits: NDArray[np.float32] | None
    model: str
    version: str

    @property
    def label(self) -> str:
        """The best class's name."""
        return self.classes[0].label

    @property
    def probability(self) -> float:
        """The best class's probability."""
        return self.classes[0].probability


@dataclass(frozen=True, eq=False)
class Embedding:
    """One image as a vector for retrieval.

    Attributes:
        vector: float32 [dimension], L2-normalised.
        fingerprint: names the model package and precision that made it.
        model: name of that model.
        version: its version.
    """

    vector: NDArray[np.float32]
    fingerprint: str
    model: str
    version: str


@dataclass(frozen=True)
class Preprocessing:
    """What a server does to a picture before the graph, whose input is then cut from the centre.

    Attributes:
        resize_short_side: the shorter side is brought to so many pixels, the aspect ratio kept.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos", antialiased as Pillow does it.
        jpeg_scaled_decode: whether large JPEGs are decoded at a half, a quarter or an eighth of their size.
    """

    resize_short_side: int
    interpolation: str
    jpeg_scaled_decode: bool


@dataclass(frozen=True)
class Model:
    """A model that the server has.

    Attributes:
        name: as requests name it.
        version: the loaded one.
        is_default: whether requests that name no model go here.
        architecture: for instance resnet50.
        task: "single_label", "multi_label", or "embedding": without classes, for `embed` and collections.
        input_height: what the graph takes, in pixels.
        input_width: what the graph takes, in pixels.
        labels: one per class, in the order of the logits; none of an "embedding" model.
        embedding_dimension: of its vectors.
        execution_provider: what really runs it, as ONNX Runtime names it.
        precision: fp32, fp16, bf16 or int8.
        fingerprint: names the model package and its precision.
        max_batch_size: the most images that run at once.
        preprocessing: of pictures, before the graph; None where an older server does not say.
    """

    name: str
    version: str
    is_default: bool
    architecture: str
    task: str
    input_height: int
    input_width: int
    labels: tuple[str, ...]
    embedding_dimension: int
    execution_provider: str
    precision: str
    fingerprint: str
    max_batch_size: int
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class LoadingModel:
    """A model that the server is still loading.

    Attributes:
        name: as requests name it.
        version: the one that will be there.
        is_default: as of `Model`.
    """

    name: str
    version: str
    is_default: bool


@dataclass(frozen=True)
class Collection:
    """A collection of vectors as it stands.

    Attributes:
        name: as requests name it.
        dimension: of every vector.
        metric: "cosine", "inner_product" or "l2".
        fingerprint: of the model that makes its vectors; empty: it takes vectors of any origin, no images.
        count: how many items it has.
        model: name of the model that the fingerprint belongs to; empty when the server hasn't loaded it.
        version: that model's version.
        attributes: those declared, by name.
        storage: of its vectors: "float32" or "float16".
        index_type: how it is searched just now, in the engine's own word: "flat" is exact.
    """

    name: str
    dimension: int
    metric: str
    fingerprint: str
    count: int
    model: str
    version: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    storage: str = "float32"
    index_type: str = ""


@dataclass(frozen=True, eq=False)
class Item:
    """One item to store: an id, and an image or a vector, not both.

    Attributes:
        id: 1 to 512 bytes of UTF-8, the caller's own.
        image: embedded by the collection's model.
        vector: [dimension], or an Embedding, whose fingerprint is then checked too.
        attributes: stored with the item and returned with it.
    """

    id: str
    image: ImageSource | None = None
    vector: ArrayLike | Embedding | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.image is None) == (self.vector is None):
            raise ValueError(f"item {self.id!r}: give either image= or vector=")


@dataclass(frozen=True, eq=False)
class Query:
    """What to look for: an image, a vector or a stored item's id; exactly one of them."""

    image: ImageSource | None = None
    vector: ArrayLike | Embedding | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.image, self.vector, self.id)) != 1:
            raise ValueError("give exactly one of image=, vector= and id=")


@dataclass(frozen=True)
class UpsertResult:
    """What became of one item.

    Attributes:
        id: the item's.
        error: why it was not written; None when it was, and is on the server's disk.
    """

    id: str
    error: FoveaError | None


@dataclass(frozen=True, eq=False)
class StoredItem:
    """One item as stored.

    Attributes:
        id: the caller's own.
        attributes: as they were written.
        vector: float32 [dimension]; None unless asked for.
    """

    id: str
    attributes: Mapping[str, AttributeValue]
    vector: NDArray[np.float32] | None


@dataclass(frozen=True)
class Neighbor:
    """One item found.

    Attributes:
        id: the item's.
        score: similarity by the collection's metric; higher is nearer.
        attributes: the item's.
    """

    id: str
    score: float
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class GroupBy:
    """Diversity: of the items with one value of an attribute only the nearest are found.

    Attributes:
        attribute: one that the collection declares; items without it are never limited.
        max_per_group: how many, at least 1.
    """

    attribute: str
    max_per_group: int = 1


@dataclass(frozen=True)
class QueryExpansion:
    """α query expansion: the query is searched again as the sum of itself and of its nearest neighbours.

    Attributes:
        neighbors: how many of the nearest, at least 1.
        alpha: each weighs its score to this power, 0 or more.
    """

    neighbors: int = 10
    alpha: float = 3.0


@dataclass(frozen=True)
class Snapshot:
    """A collection's file on the server.

    Attributes:
        name: as `restore` takes it.
        size_bytes: of the file.
        created: when it was written, in UTC.
    """

    name: str
    size_bytes: int
    created: datetime


@dataclass(frozen=True)
class ReembedProgress:
    """How far the making anew of a collection has come.

    Attributes:
        done: items looked at.
        total: items there are.
        skipped: those left out since the last time, and why.
        collection: the new one, with the last progress; None before.
    """

    done: int
    total: int
    skipped: tuple[UpsertResult, ...]
    collection: Collection | None
