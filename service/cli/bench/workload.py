"""The messages of a run, serialised before the clock starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import gcd

import numpy as np

from service.cli.bench.methods import Content, Fields, Method
from service.cli.bench.payload import Payload, size_bytes

MAX_TOTAL_BYTES = 256 * 1024 * 1024
_VECTORS = 256
_ID_PREFIX = "fovea-bench-"


@dataclass(frozen=True)
class Workload:
    """What is sent, over and over, in this order.

    Attributes:
        method: how.
        messages: serialised requests.
        per_message: images, vectors or ids in each; 0 where a message carries none.
    """

    method: Method
    messages: tuple[bytes, ...]
    per_message: int

    @property
    def average_bytes(self) -> float:
        """Of a message."""
        return sum(map(len, self.messages)) / len(self.messages)


def of_pictures(
    method: Method,
    fields: Fields,
    pictures: Sequence[Payload],
    per_message: int,
    max_total_bytes: int = MAX_TOTAL_BYTES,
) -> Workload:
    """Messages of consecutive pictures, in turn, until the same one would come again or memory is full.

    Upserted items have the ids fovea-bench-0, fovea-bench-1, … by picture, so that a long run replaces
    what a short one wrote.
    """
    messages: list[bytes] = []
    total = 0
    for number in range(_different(len(pictures), per_message)):
        places = [(number * per_message + i) % len(pictures) for i in range(per_message)]
        chosen = [pictures[place] for place in places]
        total += sum(map(size_bytes, chosen))
        if messages and total > max_total_bytes:
            break
        # A message must not name an id twice.
        ids = [f"{_ID_PREFIX}{number * per_message + i}" for i in range(per_message)]
        messages.append(method.message(fields, Content(pictures=chosen, ids=ids)))
    return Workload(method, tuple(messages), per_message)


def of_vectors(method: Method, fields: Fields, dimension: int, per_message: int, seed: int) -> Workload:
    """Messages of random directions, float32 [dimension] of length 1, the same for the same seed."""
    vectors = np.random.default_rng(seed).standard_normal((_VECTORS, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    messages = []
    for number in range(_different(_VECTORS, per_message)):
        places = [(number * per_message + i) % _VECTORS for i in range(per_message)]
        ids = [f"{_ID_PREFIX}{number * per_message + i}" for i in range(per_message)]
        messages.append(method.message(fields, Content(vectors=[vectors[at] for at in places], ids=ids)))
        if len(messages) * len(messages[0]) > MAX_TOTAL_BYTES:
            break
    return Workload(method, tuple(messages), per_message)


def of_ids(method: Method, fields: Fields, per_message: int) -> Workload:
    """Messages that name the items that `upsert` and `upsert-vectors` write."""
    ids = (f"{_ID_PREFIX}{number}" for number in range(_VECTORS * per_message))
    messages = []
    while chosen := list(islice(ids, per_message)):
        messages.append(method.message(fields, Content(ids=chosen)))
    return Workload(method, tuple(messages), per_message)


def of_nothing(method: Method, fields: Fields) -> Workload:
    """The one message of a method that carries nothing."""
    return Workload(method, (method.message(fields, Content()),), 0)


def _different(there: int, per_message: int) -> int:
    """Messages of `per_message` consecutive ones of a ring, until the first comes again."""
    return there // gcd(there, per_message)
