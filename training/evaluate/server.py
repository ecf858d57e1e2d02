"""A model in a running server, asked by gRPC as any caller would."""

import math
import statistics
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from service.errors import InvalidImage
from training.errors import TargetError
from training.evaluate.target import Answer, Target
from training.source import source_bytes
from training.splits import Split

if TYPE_CHECKING:  # grpc is slow to import
    from fovea import Classification, Embedding, FoveaError, ImageSource

# How often the temperature is worked out from what was served; the median of as many is exact enough.
_SAMPLES = 1001


class ServerTarget(Target):
    """Asks a Fovea server; use it as a context, which closes the connection.

    The pictures' own bytes are sent, so that decoding and preprocessing are the server's. Bulk work: the
    server's other callers go first.

    Args:
        address: host:port.
        model: its name; None is the server's default.
        version: None is the one that is loaded.

    Raises:
        TargetError: nobody answers there, or there is no such model.
    """

    kind: ClassVar[str] = "server"

    def __init__(self, address: str, model: str | None = None, version: str | None = None) -> None:
        from fovea import Client

        self._client = Client(address, timeout=120.0)
        self._samples: list[float] = []
        try:
            with _explained(address):
                found = self._client.model(model, version=version)
        except BaseException:
            self._client.close()
            raise
        self._address, self._model, self._version = address, found.name, found.version
        self.name = f"{found.name} at {address}"
        self.task, self.labels = found.task, found.labels
        self.facts = {
            "model": f"{found.name}, version {found.version}",
            "architecture": found.architecture,
            "engine": f"{found.execution_provider}, behind {address}",
            "precision": found.precision,
        }

    def __enter__(self) -> "ServerTarget":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()

    def answers(self, split: Split) -> Iterator[Answer]:
        """One for each picture, in their order; what the server refuses fails alone."""
        from fovea import Unavailable

        unreadable: dict[int, str] = {}
        with (
            _explained(self._address),
            closing(self._classifications(split, unreadable)) as classifications,
            closing(self._embeddings(split, unreadable)) as embeddings,
        ):
            for index, (named, embedded) in enumerate(zip(classifications, embeddings, strict=False)):
                for outcome in (named, embedded):
                    if isinstance(outcome, Unavailable):
                        # Of the server, not of this picture: a score on the rest would mislead.
                        raise outcome
                if index in unreadable:
                    yield Answer(index, fault=unreadable.pop(index))
                elif isinstance(named, Exception):
                    yield Answer(index, fault=str(named))
                elif isinstance(embedded, Exception):
                    yield Answer(index, fault=str(embedded))
                else:
                    if named is not None:
                        self._observe(named)
                    yield Answer(index, None if named is None else named.logits, embedded.vector)

    def _classifications(
        self, split: Split, unreadable: dict[int, str]
    ) -> "Generator[Classification | FoveaError | None, None, None]":
        if self.task == "embedding":
            return (nothing for nothing in repeat(None, len(split)))
        return self._client.classify_stream(
            _images(split, unreadable), model=self._model, version=self._version, include_logits=True,
            top_k=2, priority="bulk",
        )  # fmt: skip

    def _embeddings(
        self, split: Split, unreadable: dict[int, str]
    ) -> "Generator[Embedding | FoveaError, None, None]":
        return self._client.embed_stream(
            _images(split, unreadable), model=self._model, version=self._version, priority="bulk"
        )

    @property
    def temperature(self) -> float:
        """As the replies show it: each has logits, and probabilities made of them with it.

        1 where no reply shows it, as when all its logits are equal.
        """
        return statistics.median(self._samples) if self._samples else 1.0

    def _observe(self, named: "Classification") -> None:
        if len(self._samples) >= _SAMPLES or named.logits is None:
            return
        logits = [float(named.logits[one.index]) for one in named.classes]
        said = [one.probability for one in named.classes]
        if self.task == "multi_label":
            # p = 1 / (1 + exp(-logit / T))
            logit, odds = logits[0], said[0] / (1 - said[0]) if 0 < said[0] < 1 else 1.0
        elif len(said) > 1 and said[1] > 0:
            # p1 / p2 = exp((logit1 - logit2) / T)
            logit, odds = logits[0] - logits[1], said[0] / said[1]
        else:
            return
        # Near even odds the quotient below is mostly rounding, and far from them the probability is.
        if 0.1 < abs(math.log(odds)) < 10 and np.isfinite(logit):
            self._samples.append(logit / math.log(odds))


def _images(split: Split, unreadable: dict[int, str]) -> "Iterator[ImageSource]":
    """What to send; what can't be read is noted, and a black pixel sent in its place."""
    for index, source in enumerate(split.sources):
        if isinstance(source, np.ndarray):
            yield source
            continue
        try:
            yield source_bytes(source)
        except (InvalidImage, OSError) as error:
            unreadable[index] = (error.strerror if isinstance(error, OSError) else None) or str(error)
            yield np.zeros((1, 1, 3), np.uint8)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    from fovea import FoveaError

    try:
        yield
    except FoveaError as error:
        raise TargetError(f"the server at {address}: {error}") from error
