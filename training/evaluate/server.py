"""A model in a running server, asked by gRPC as any caller would."""

import math
import statistics
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from service.errors import InvalidImage
from service.preprocess import Preprocessing
from training.errors import TargetError
from training.evaluate.local import prepared
from training.evaluate.target import Answer, Target
from training.evaluate.ten_crop import CROPS, TenCrop
from training.source import source_bytes
from training.splits import Split

if TYPE_CHECKING:  # grpc is slow to import
    from fovea import Classification, Embedding, FoveaError, ImageSource, Model

# How often the temperature is worked out from what was served; the median of as many is exact enough.
_SAMPLES = 1001
# Pictures that wait, cut into crops, to be sent.
_AHEAD = 16


class ServerTarget(Target):
    """Asks a Fovea server; use it as a context, which closes the connection.

    The pictures' own bytes are sent, so that decoding and preprocessing are the server's; ten crops are cut
    here instead, and sent so that the server's preprocessing leaves them as they are. Bulk work: the server's
    other callers go first.

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

        try:
            self._client = Client(address, timeout=120.0)
        except ValueError as error:  # no address
            raise TargetError(str(error)) from error
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
        self.preprocessing = _preprocessing(found)
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

    def answers(self, split: Split, ten_crop: TenCrop | None = None) -> Iterator[Answer]:
        """As `Target.answers`; what the server refuses fails alone."""
        from fovea import Unavailable

        unreadable: dict[int, str] = {}
        views = 1 if ten_crop is None else CROPS

        def images() -> "Iterator[ImageSource]":
            return _images(split, unreadable) if ten_crop is None else _crops(split, ten_crop, unreadable)

        with (
            _explained(self._address),
            closing(self._classifications(images)) as classifications,
            closing(self._embeddings(images)) as embeddings,
        ):
            for number, (named, embedded) in enumerate(zip(classifications, embeddings, strict=False)):
                index = number // views
                for outcome in (named, embedded):
                    if isinstance(outcome, Unavailable):
                        # Of the server, not of this picture: a score on the rest would mislead.
                        raise outcome
                if index in unreadable:
                    yield Answer(index, fault=unreadable[index])
                elif isinstance(named, Exception):
                    yield Answer(index, fault=str(named))
                elif isinstance(embedded, Exception):
                    yield Answer(index, fault=str(embedded))
                else:
                    if named is not None:
                        self._observe(named)
                    yield Answer(index, None if named is None else named.logits, embedded.vector)

    def _classifications(
        self, images: "Callable[[], Iterator[ImageSource]]"
    ) -> "Generator[Classification | FoveaError | None, None, None]":
        if self.task == "embedding":
            return (nothing for nothing in repeat(None))
        return self._client.classify_stream(
            images(), model=self._model, version=self._version, include_logits=True, top_k=2, priority="bulk"
        )

    def _embeddings(
        self, images: "Callable[[], Iterator[ImageSource]]"
    ) -> "Generator[Embedding | FoveaError, None, None]":
        return self._client.embed_stream(images(), model=self._model, version=self._version, priority="bulk")

    @property
    def temperature(self) -> float:
        """As the replies show it: each has logits, and probabilities made of them with it.

        1 where no reply shows it, as when all its logits are equal.
        """
        found = statistics.median(self._samples) if self._samples else 1.0
        # A temperature of 1 is told as none at all; float32's rounding isn't one.
        return 1.0 if math.isclose(found, 1.0, rel_tol=1e-5) else found

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


def _crops(split: Split, ten_crop: TenCrop, unreadable: dict[int, str]) -> "Iterator[ImageSource]":
    """Ten pictures to send for each; for what can't be decoded, which is noted, ten black pixels."""
    for index, crops in enumerate(prepared(split, ten_crop.spec.least_short_side, ten_crop.crops, _AHEAD)):
        if isinstance(crops, str):
            unreadable[index] = crops
            yield from repeat(np.zeros((1, 1, 3), np.uint8), CROPS)
        else:
            yield from map(ten_crop.sent, crops)


def _preprocessing(model: "Model") -> Preprocessing | None:
    """As the server says; None where an older one says nothing, or a newer one what is unknown here."""
    said = model.preprocessing
    if said is None:
        return None
    try:
        return Preprocessing(
            resize_short_side=said.resize_short_side,
            crop_height=model.input_height,
            crop_width=model.input_width,
            interpolation=said.interpolation,
            jpeg_scaled_decode=said.jpeg_scaled_decode,
        )
    except ValueError:
        return None


@contextmanager
def _explained(address: str) -> Iterator[None]:
    from fovea import FoveaError

    try:
        yield
    except FoveaError as error:
        raise TargetError(f"the server at {address}: {error}") from error
