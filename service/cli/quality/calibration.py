"""How near a model's vectors of one picture and of its altered copies are: the threshold for duplicates."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from fovea import Client, FailedPrecondition, FoveaError, NotFound
from PIL import Image

from service.cli.bulk.entry import TarMember, Unusable, content_of
from service.cli.quality.evaluation import unit
from service.errors import InvalidImage
from service.image import decode_picture

MAX_SAMPLE = 64
# The hash has left few pairs, so the cosine may let nearly all copies through.
_KEPT = 0.99
# A model may see no difference in what was altered here; copies are altered in other ways too.
_HIGHEST = 0.98
_SHORT_SIDE = 512


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        threshold: the cosine that 99% of the altered copies have with their picture, 0.98 at most.
        copies: how many altered copies.
        unlike_share: share of pairs of different pictures that reach it too.
    """

    threshold: float
    copies: int
    unlike_share: float


def calibrate(
    client: Client, places: Sequence[Path | TarMember], model: str | None, version: str | None
) -> Calibration:
    """Alter some pictures as copies of them get altered, and compare what the model makes of both.

    Args:
        client: of the server.
        places: pictures; at most 64 of them are taken, evenly.
        model: whose vectors they are.
        version: of the model.

    Raises:
        click.ClickException: none can be read.
        FoveaError: the model isn't there.
    """
    step = max(1, len(places) // MAX_SAMPLE)
    originals: list[np.ndarray] = []
    altered: list[np.ndarray] = []
    for place in list(places)[::step][:MAX_SAMPLE]:
        try:
            picture = decode_picture(content_of(place), least_short_side=_SHORT_SIDE).image
        except (Unusable, InvalidImage):
            continue
        results = list(client.embed_stream(_versions(picture), model=model, version=version))
        for result in results:
            if isinstance(result, NotFound | FailedPrecondition):
                raise result
        if not any(isinstance(result, FoveaError) for result in results):
            first, *others = (result.vector for result in results if not isinstance(result, FoveaError))
            originals.append(first)
            altered += others
    if not originals:
        raise click.ClickException("no picture can be used to calibrate the threshold; give --threshold")
    own, copies = unit(np.stack(originals)), unit(np.stack(altered))
    per_picture = len(copies) // len(own)
    near = np.einsum("ij,ij->i", np.repeat(own, per_picture, axis=0), copies)
    threshold = min(_HIGHEST, float(np.quantile(near, 1 - _KEPT)))
    unlike = (own @ own.T)[np.triu_indices(len(own), 1)]
    share = float((unlike >= threshold).mean()) if len(unlike) else 0.0
    return Calibration(threshold, len(copies), share)


def _versions(picture: Image.Image) -> Iterator[bytes]:
    """The picture, and copies of it: strongly compressed, half as large, brighter."""
    yield _file(picture, "PNG")
    yield _file(picture, "JPEG")
    half = (max(1, picture.width // 2), max(1, picture.height // 2))
    yield _file(picture.resize(half, Image.Resampling.LANCZOS), "PNG")
    yield _file(picture.point(lambda value: min(255, round(value * 1.1))), "PNG")


def _file(picture: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    options = {"quality": 50} if kind == "JPEG" else {"compress_level": 1}
    picture.save(content, kind, **options)
    return content.getvalue()
