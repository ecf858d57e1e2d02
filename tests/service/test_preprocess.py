"""Resizing only what is kept gives what resizing everything, then cropping, gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from service.manifest import read_manifest
from service.preprocess import INTERPOLATIONS, Picture, Preprocessing, preprocess
from tests.packages import write_pixels

Pixels = NDArray[np.uint8]


def noise(height: int, width: int, low: int = 0, high: int = 255) -> Pixels:
    shape = (height, width, 3)
    return np.random.default_rng(0).integers(low, high, shape, dtype=np.uint8, endpoint=True)


def resize_then_crop(image: Pixels, spec: Preprocessing) -> Pixels:
    """The textbook way, with torchvision's rounding of sizes (Resize) and offsets (CenterCrop)."""
    height, width = image.shape[:2]
    short = min(height, width)
    size = int(spec.resize_short_side * width / short), int(spec.resize_short_side * height / short)
    resized = Image.fromarray(image).resize(size, INTERPOLATIONS[spec.interpolation])
    top = round((size[1] - spec.crop_height) / 2.0)
    left = round((size[0] - spec.crop_width) / 2.0)
    return np.asarray(resized)[top : top + spec.crop_height, left : left + spec.crop_width]


# Pillow resamples rows, then columns, or the other way, whichever is cheaper for what is kept, and
# rounds in between: one level of difference, rarely two. The negative lobes of bicubic and lanczos
# overshoot, and what passes 0 or 255 is clipped in between, so such pixels are kept out.
TOLERANCE = 2
SMOOTH = ("bilinear", "bicubic", "lanczos")


def assert_equals_resize_then_crop(image: Pixels, spec: Preprocessing) -> None:
    expected, result = resize_then_crop(image, spec), preprocess(image, spec)
    assert result.shape == expected.shape == (spec.crop_height, spec.crop_width, 3)
    assert np.abs(result.astype(int) - expected).max() <= TOLERANCE


def clear_of_clipping(height: int, width: int, interpolation: str) -> Pixels:
    return noise(height, width) if interpolation == "bilinear" else noise(height, width, 96, 160)


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    side=st.integers(1, 40),
    crop=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    interpolation=st.sampled_from(SMOOTH),
)
def test_equals_resize_then_crop(
    height: int, width: int, side: int, crop: tuple[float, float], interpolation: str
) -> None:
    crop_height, crop_width = (max(1, round(side * part)) for part in crop)
    spec = Preprocessing(side, crop_height, crop_width, interpolation)
    assert_equals_resize_then_crop(clear_of_clipping(height, width, interpolation), spec)


@pytest.mark.parametrize("interpolation", SMOOTH)
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (100, 80)])
def test_equals_resize_then_crop_at_usual_sizes(interpolation: str, height: int, width: int) -> None:
    spec = Preprocessing(256, 224, 224, interpolation)
    assert_equals_resize_then_crop(clear_of_clipping(height, width, interpolation), spec)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_an_image_of_the_right_size_is_left_alone(interpolation: str) -> None:
    image = noise(32, 24)
    spec = Preprocessing(24, 24, 24, interpolation)
    assert np.array_equal(preprocess(image, spec), image[4:28])
    assert np.array_equal(preprocess(image[:24], spec), image[:24])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_smaller_crop_is_the_centre(interpolation: str) -> None:
    image = noise(24, 24)
    assert np.array_equal(preprocess(image, Preprocessing(24, 16, 8, interpolation)), image[4:20, 8:16])


def test_nearest_enlarges_by_whole_pixels() -> None:
    image = noise(3, 3)
    expected = image.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(preprocess(image, Preprocessing(12, 12, 12, "nearest")), expected)


def test_channels_stay_apart() -> None:
    image = np.zeros((50, 40, 3), np.uint8)
    image[..., 1] = 200
    assert np.unique(preprocess(image, Preprocessing(16, 16, 16)).reshape(-1, 3), axis=0).tolist() == [
        [0, 200, 0]
    ]


# Resizing the whole of these would take 256 × 25,600,000 pixels: 20 GB.
@pytest.mark.parametrize("tall", [True, False])
def test_extreme_aspect_ratio_costs_no_more_than_its_crop(tall: bool) -> None:
    column = np.zeros((100_000, 1, 3), np.uint8)
    column[50_000:] = 255
    image = column if tall else column.transpose(1, 0, 2)
    result = preprocess(image, Preprocessing(256, 224, 224, "nearest"))
    assert result.shape == (224, 224, 3)
    upright = result if tall else result.transpose(1, 0, 2)
    assert upright[:112].max() == 0
    assert upright[112:].min() == 255


def test_one_pixel_fills_the_input() -> None:
    image = np.array([[[1, 2, 3]]], np.uint8)
    result = preprocess(image, Preprocessing(256, 224, 224))
    assert np.unique(result.reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]


def test_pictures_and_arrays_give_the_same() -> None:
    image, spec = noise(70, 50), Preprocessing(32, 28, 28, "bicubic")
    result = preprocess(Image.fromarray(image), spec)
    assert np.array_equal(result, preprocess(image, spec))
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_whole_picture_is_its_image(interpolation: str) -> None:
    image, spec = noise(71, 53), Preprocessing(32, 28, 24, interpolation)
    picture = Picture.whole(Image.fromarray(image))
    assert (picture.width, picture.height, picture.box) == (53, 71, (0.0, 0.0, 53.0, 71.0))
    assert np.array_equal(preprocess(picture, spec), preprocess(image, spec))


@pytest.mark.parametrize(("left", "top"), [(0, 0), (1, 0), (0, 2), (3, 1)])
def test_only_what_lies_in_the_box_is_the_picture(left: int, top: int) -> None:
    # Nearest reads no neighbours, so that what lies outside must not show at all.
    image = noise(40, 60, high=100)
    framed = np.full((44, 64, 3), 255, np.uint8)
    framed[top : top + 40, left : left + 60] = image
    box = (float(left), float(top), left + 60.0, top + 40.0)
    spec = Preprocessing(20, 20, 20, "nearest")
    result = preprocess(Picture(Image.fromarray(framed), 60, 40, box), spec)
    assert np.array_equal(result, preprocess(image, spec))


def test_a_scaled_picture_is_cropped_as_its_file_would_be() -> None:
    # 75 × 50 pixels at a half: the last column is half a pixel wide.
    across = np.linspace(0, 255, 76)[:-1]
    whole = np.repeat(np.repeat(across[None, :, None], 50, axis=0), 3, axis=2)
    padded = np.concatenate([whole, whole[:, -1:]], axis=1)
    halves = padded.reshape(25, 2, 38, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    spec = Preprocessing(10, 10, 10)
    scaled = Picture(Image.fromarray(halves), 75, 50, (0.0, 0.0, 37.5, 25.0))
    expected = preprocess(whole.round().astype(np.uint8), spec)
    assert np.abs(preprocess(scaled, spec).astype(int) - expected).max() <= 1
    assert np.abs(preprocess(halves, spec).astype(int) - expected).max() > 1, "the file's size matters"


def test_scaled_decoding_is_an_option() -> None:
    assert Preprocessing(256, 224, 224).least_short_side is None
    assert Preprocessing(256, 224, 224, jpeg_scaled_decode=True).least_short_side == 320
    assert Preprocessing(255, 224, 224, jpeg_scaled_decode=True).least_short_side == 319
    with pytest.raises(ValueError, match="jpeg_scaled_decode is 'yes'; expected true or false"):
        Preprocessing(256, 224, 224, jpeg_scaled_decode="yes")  # type: ignore[arg-type] # as from a file


def test_a_read_only_view_is_accepted() -> None:
    image = np.frombuffer(bytes(range(48)), np.uint8).reshape(4, 4, 3)
    assert np.array_equal(preprocess(image, Preprocessing(4, 4, 4)), image)


def test_a_package_says_it_all(tmp_path: Path) -> None:
    spec = Preprocessing(24, 20, 16, "bicubic", jpeg_scaled_decode=True)
    assert Preprocessing.of(read_manifest(write_pixels(tmp_path, spec))) == spec


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((256, 224, 224, "cubic"), "interpolation is 'cubic'; expected one of nearest, bilinear, bicubic"),
        ((224, 256, 224), "crop_height is 256; expected 1 to resize_short_side = 224"),
        ((224, 224, 225), "crop_width is 225; expected 1 to resize_short_side = 224"),
        ((224, 0, 224), "crop_height is 0"),
        ((224, 224, -1), "crop_width is -1"),
        ((0, 1, 1), "crop_height is 1; expected 1 to resize_short_side = 0"),
    ],
)
def test_impossible_preprocessing_is_refused(values: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(*values)
