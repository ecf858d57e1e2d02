"""What the network is trained on against what the service will hand it."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from service.image import decode_picture
from service.preprocess import Picture, Preprocessing, preprocess
from tests.training.pictures import draw, picture
from training.data import Batches, Split
from training.normalization import Normalization
from training.transforms import EvalTransform, TrainTransform

SPECS = [
    Preprocessing(256, 224, 224),
    Preprocessing(224, 224, 224, "bicubic"),
    Preprocessing(32, 32, 32, "lanczos"),
    Preprocessing(40, 32, 24, "nearest"),
    Preprocessing(48, 40, 32, jpeg_scaled_decode=True),
]
SIZES = [(640, 427), (33, 200), (224, 224), (5, 3), (1, 70)]


def encoded(size: tuple[int, int], kind: str) -> bytes:
    stream = io.BytesIO()
    picture(1, seed=sum(size), width=size[0], height=size[1]).save(stream, kind)
    return stream.getvalue()


def service_pixels(file: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    picture = decode_picture(file.read_bytes(), least_short_side=spec.least_short_side)
    return preprocess(picture, spec)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_evaluation_sees_the_services_pixels(
    tmp_path: Path, spec: Preprocessing, size: tuple[int, int], kind: str
) -> None:
    file = tmp_path / "picture"
    file.write_bytes(encoded(size, kind))
    batches = Batches(Split([file], np.zeros(1, np.int64)), EvalTransform(spec), batch_size=4)
    ((pixels, _),) = list(batches)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels[0].numpy(), service_pixels(file, spec))


@pytest.mark.parametrize("spec", [Preprocessing(256, 224, 224), SPECS[-1]], ids=str)
def test_evaluation_sees_the_services_pixels_of_real_photographs(
    photos: list[Path], spec: Preprocessing
) -> None:
    batches = Batches(Split(photos, np.zeros(len(photos), np.int64)), EvalTransform(spec), batch_size=1)
    for (pixels, _), photo in zip(batches, photos, strict=True):
        assert np.array_equal(pixels[0].numpy(), service_pixels(photo, spec))


@pytest.mark.parametrize("scaled", [False, True])
def test_what_jpegs_may_be_decoded_at(scaled: bool) -> None:
    spec = Preprocessing(48, 40, 32, jpeg_scaled_decode=scaled)
    assert EvalTransform(spec).least_short_side == spec.least_short_side
    assert (spec.least_short_side is not None) == scaled
    for crop in ("padded", "none"):
        assert TrainTransform(spec, crop, mirror=True).least_short_side == spec.least_short_side
    # A small part may fill the input: it depends on the draw.
    resized = TrainTransform(spec, "resized", mirror=True)
    assert (resized.least_short_side, resized.sized) == (None, scaled)


@pytest.mark.parametrize("crop", ["resized", "padded", "none"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_training_views_have_the_inputs_size(crop: str, size: tuple[int, int]) -> None:
    transform = TrainTransform(Preprocessing(40, 32, 24), crop, mirror=True)
    view = Picture.whole(picture(0, 1, *size))
    for seed in range(25):
        pixels = transform(view, draw(seed))
        assert pixels.shape == (32, 24, 3)
        assert pixels.dtype == np.uint8


def test_a_padded_crop_shifts_over_black() -> None:
    spec = Preprocessing(16, 16, 16)
    transform = TrainTransform(spec, "padded", mirror=False)
    whole = Picture.whole(picture(1, 3, 16, 16))
    pixels = np.asarray(whole.image)
    shifts = set()
    for seed in range(200):
        view = transform(whole, draw(seed))
        padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)))
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(view, padded[top : top + 16, left : left + 16])
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 25


def test_mirroring_is_done_to_half_and_only_when_asked() -> None:
    spec = Preprocessing(16, 16, 16)
    whole = Picture.whole(picture(1, 3, 16, 16))
    pixels = np.asarray(whole.image)
    views = [TrainTransform(spec, "none", mirror=True)(whole, draw(seed)) for seed in range(200)]
    mirrored = sum(np.array_equal(view, pixels[:, ::-1]) for view in views)
    plain = sum(np.array_equal(view, pixels) for view in views)
    assert mirrored + plain == 200
    assert 60 < mirrored < 140
    for seed in range(20):
        kept = TrainTransform(spec, "none", mirror=False)(whole, draw(seed))
        assert np.array_equal(kept, pixels)


def test_resized_crops_keep_to_the_picture() -> None:
    # A picture of one colour stays so: no crop reaches over its edge.
    flat = Picture.whole(Image.new("RGB", (301, 77), (10, 200, 30)))
    transform = TrainTransform(Preprocessing(64, 64, 64), "resized", mirror=False)
    for seed in range(200):
        assert (transform(flat, draw(seed)) == (10, 200, 30)).all()


def test_resized_crops_take_parts_of_every_size_shape_and_place() -> None:
    # The pixels say where they come from.
    side = 256
    down, across = np.mgrid[0:side, 0:side].astype(np.uint8)
    where = Picture.whole(Image.fromarray(np.stack([across, down, np.zeros_like(down)], axis=2)))
    transform = TrainTransform(Preprocessing(64, 64, 64, "nearest"), "resized", mirror=False)
    areas, ratios, lefts, tops = [], [], [], []
    for seed in range(400):
        view = transform(where, draw(seed)).astype(int)
        (left, top), (right, bottom) = view[0, 0, :2], view[-1, -1, :2]
        # From the middle of the first of 64 pixels to the middle of the last are 63 of 64 parts.
        width, height = (right - left) * 64 / 63, (bottom - top) * 64 / 63
        areas.append(width * height / side**2)
        ratios.append(width / height)
        lefts.append(left)
        tops.append(top)
    assert 0.06 < min(areas) < 0.12
    assert 0.9 < max(areas) < 1.03
    # Uniform from 0.08 to 1; the largest often don't fit in their shape and are drawn again.
    assert 0.45 < np.mean(areas) < 0.58
    assert (min(ratios), max(ratios)) == pytest.approx((3 / 4, 4 / 3), rel=0.06)
    assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.03)
    assert max(lefts) > 120
    assert max(tops) > 120
    assert np.corrcoef(lefts, tops)[0, 1] < 0.8


@pytest.mark.parametrize("orientation", [1, 6])
def test_resized_crops_of_large_jpegs_are_decoded_as_small_as_the_part_allows(
    tmp_path: Path, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Smooth, with a colour of its own at every place.
    down, across = np.mgrid[0:600, 0:800]
    pixels = np.stack([across // 4, down // 3, 128 + 60 * np.sin(across / 60)], axis=2).astype(np.uint8)
    file = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, quality=95, exif=exif)
    split = Split([file], np.zeros(1, np.int64))
    decoded: list[Picture] = []
    views = {}
    real = Split.picture

    def noted(split: Split, index: int, least: Any = None) -> Picture:
        decoded.append(real(split, index, least))
        return decoded[-1]

    monkeypatch.setattr(Split, "picture", noted)
    for scaled in (False, True):
        spec = Preprocessing(40, 32, 32, jpeg_scaled_decode=scaled)
        batches = Batches(split, TrainTransform(spec, "resized", mirror=False), 1, seed=1)
        for epoch in range(40):
            batches.epoch = epoch
            views[scaled, epoch] = next(iter(batches))[0][0].numpy().astype(int)
    widths = [picture.image.width for picture in decoded]
    full = 800 if orientation == 1 else 600
    assert set(widths[:40]) == {full}
    assert set(widths[40:]) <= {full, full // 2, full // 4, full // 8}
    assert len(set(widths[40:])) >= 2
    for epoch in range(40):
        assert np.abs(views[True, epoch] - views[False, epoch]).mean() < 2.5
        # The part keeps at least 1.25 times the input's pixels, as in evaluation.
        spec = Preprocessing(40, 32, 32, jpeg_scaled_decode=True)
        picture = decoded[40 + epoch]
        least = TrainTransform(spec, "resized", mirror=False).least_short_side_of(
            picture.width, picture.height, random.Random(f"1/{epoch}/0")
        )
        assert min(picture.image.size) >= min(least, 600)


# The loader forks; since Python 3.12 the interpreter warns of threads, here PyTorch's idle ones.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
def test_batches_do_not_depend_on_the_workers() -> None:
    images = np.random.default_rng(0).integers(0, 256, (21, 12, 12, 3), dtype=np.uint8)
    split = Split(images, np.arange(21, dtype=np.int64))
    transform = TrainTransform(Preprocessing(12, 8, 8), "resized", mirror=True)

    def epoch(number: int, workers: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batches = Batches(split, transform, 4, shuffle=True, workers=workers, seed=5)
        batches.epoch = number
        return list(batches)

    torch.manual_seed(1)
    alone = epoch(1, workers=0)
    torch.manual_seed(2)
    together = epoch(1, workers=2)
    assert all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(alone, together, strict=True)
    )
    # A batch of one picture is left out: 20 of the 21 pictures, each once.
    assert len(alone) == 5
    seen = torch.cat([labels for _, labels in alone])
    assert len(set(seen.tolist())) == 20
    other = torch.cat([labels for _, labels in epoch(2, workers=0)])
    assert not torch.equal(seen, other)


def test_normalization_is_as_documented() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    expected = (pixels / 255 - mean) / std
    normalized = Normalization(mean, std)(torch.from_numpy(pixels))
    assert normalized.dtype == torch.float32
    assert np.allclose(normalized.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)
