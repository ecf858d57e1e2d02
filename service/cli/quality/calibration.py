"""How near a model's vectors of one picture and of its altered copies are: the threshold for duplicates."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from fovea import Client, FailedPrecondition, FoveaError, NotFound
from numpy.typing import NDArray
from PIL import Image

from service.cli.bulk.entry import TarMember, Unusable, content_of
from service.cli.quality.candidates import Hashed
from service.cli.quality.evaluation import unit
from service.cli.quality.perceptual_hash import BITS, MOST_BITS, signs
from service.errors import InvalidImage
from service.image import decode_picture

MAX_SAMPLE = 64
# The hash has left few pairs, so the cosine may let nearly all copies through.
_KEPT = 0.99
_UNLIKE_PASSED = 0.01
# A model may see no difference in what was altered here; copies are altered in other ways too.
_HIGHEST = 0.98
ALTERED = "copies at JPEG quality 50, at half the size or 1.1 times as bright"
"""What the threshold was measured on; each copy is altered in one of these ways."""
_SHORT_SIDE = 512
_LEAST_HALVED = 64


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        threshold: the cosine that 99% of the altered copies have with their picture, but not more than 1% of
            pairs of different pictures; 0.98 at most.
        copies: how many altered copies.
        copies_share: share of them that reach it.
        unlike_share: share of pairs of different pictures that do.
    """

    threshold: float
    copies: int
    copies_share: float
    unlike_share: float


def calibrate(client: Client, pictures: Hashed, model: str | None, version: str | None) -> Calibration:
    """Alter some pictures as copies of them get altered, and compare what the model makes of both.

    Args:
        client: of the server.
        pictures: at most 64 of them are taken, evenly.
        model: whose vectors they are.
        version: of the model.

    Raises:
        click.ClickException: none can be read.
        FoveaError: the model isn't there.
    """
    count = len(pictures.places)
    own: list[NDArray[np.float32]] = []
    near: list[float] = []
    bits: list[int] = []
    for number in range(0, count, max(1, -(-count // MAX_SAMPLE))):
        vectors = _embedded_versions(client, pictures.places[number], model, version)
        if vectors is not None:
            own.append(vectors[0])
            near += (vectors[1:] @ vectors[0]).tolist()
            bits.append(pictures.seen[number].bits)
    if not own:
        raise click.ClickException("no picture can be used to calibrate the threshold; give --threshold")
    unlike = _unlike_cosines(np.stack(own), bits)
    threshold = float(np.quantile(near, 1 - _KEPT))
    if len(unlike):
        threshold = max(threshold, float(np.quantile(unlike, 1 - _UNLIKE_PASSED)))
    threshold = min(threshold, _HIGHEST)
    copies = np.array(near)
    return Calibration(
        threshold,
        len(copies),
        float((copies >= threshold).mean()),
        float((unlike >= threshold).mean()) if len(unlike) else 0.0,
    )


def _unlike_cosines(own: NDArray[np.float32], bits: list[int]) -> NDArray[np.float32]:
    """float32 [pairs]: of the pairs whose hashes say that they are no copies of each other."""
    marks = signs(bits)
    different = np.triu(marks @ marks.T < BITS - 2 * MOST_BITS - 0.5)
    return np.asarray((own @ own.T)[different], np.float32)


def _embedded_versions(
    client: Client, place: Path | TarMember, model: str | None, version: str | None
) -> NDArray[np.float32] | None:
    """float32 [versions, dimension] of unit length, the picture's own first; None where it can't be used."""
    try:
        picture = decode_picture(content_of(place), least_short_side=_SHORT_SIDE).image
    except (Unusable, InvalidImage):
        return None
    vectors = []
    for result in client.embed_stream(_versions(picture), model=model, version=version):
        if isinstance(result, NotFound | FailedPrecondition):
            raise result
        if isinstance(result, FoveaError):
            return None
        vectors.append(result.vector)
    return unit(np.stack(vectors))


def _versions(picture: Image.Image) -> Iterator[bytes]:
    """The picture, and copies of it: strongly compressed, half as large, brighter."""
    yield _file(picture, "PNG")
    yield _file(picture, "JPEG")
    if min(picture.size) >= _LEAST_HALVED:  # smaller ones lose what is on them
        yield _file(
            picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS), "PNG"
        )
    yield _file(picture.point(lambda value: min(255, round(value * 1.1))), "PNG")


def _file(picture: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    options = {"quality": 50} if kind == "JPEG" else {"compress_level": 1}
    picture.save(content, kind, **options)
    return content.getvalue()
