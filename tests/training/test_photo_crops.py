"""Crops to measure on and to calibrate on: real parts of the pictures, always the same, never shared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.preprocess import Preprocessing
from tests.training.conftest import Trained
from tests.training.pictures import CLASSES, write_class_folders
from training.errors import ExportError, SettingError
from training.photo_crops import MAX_CROPS, calibration_crops, evaluation_crops

SPEC = Preprocessing(resize_short_side=20, crop_height=16, crop_width=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures whose pixels tell their place: red grows with the column, green with the row."""
    rows, columns = np.mgrid[0:200, 0:200]
    for blue in (0, 255):
        pixels = np.stack([columns, rows, np.full_like(rows, blue)], axis=2).astype(np.uint8)
        name = tmp_path / "photos" / CLASSES[blue // 255]
        name.mkdir(parents=True)
        Image.fromarray(pixels).save(name / "one.png")
    return tmp_path / "photos"


def extents(pixels: np.ndarray) -> np.ndarray:
    """Of each picture: the columns and rows that lie between its edges, of 200."""
    wide = pixels[:, :, -1, 0].astype(float).mean(1) - pixels[:, :, 0, 0].astype(float).mean(1)
    high = pixels[:, -1, :, 1].astype(float).mean(1) - pixels[:, 0, :, 1].astype(float).mean(1)
    return np.stack([wide, high], axis=1)


def test_crops_are_parts_of_half_to_all_of_the_picture(folder: Path) -> None:
    crops = evaluation_crops(folder, SPEC, CLASSES, 100)
    assert crops.pixels.shape == (200, 16, 16, 3)
    assert crops.labels is not None
    assert crops.labels.tolist() == [0] * 100 + [1] * 100
    assert np.array_equal(crops.pixels[:, 8, 8, 2], np.repeat([0, 255], 100))
    shares = np.abs(extents(crops.pixels)) / 200
    # The service then cuts 16 of 20 pixels of the crop's short side out of its centre.
    assert shares.min() > 0.35
    assert shares.max() < 0.85
    assert shares.std() > 0.03
    mirrored = extents(crops.pixels)[:, 0] < 0
    assert 0.3 < mirrored.mean() < 0.7
    assert (extents(crops.pixels)[:, 1] > 0).all()  # never upside down


def test_crops_are_always_the_same_and_never_those_calibrated_on(folder: Path) -> None:
    first, again = (evaluation_crops(folder, SPEC, CLASSES, 20).pixels for _ in range(2))
    assert np.array_equal(first, again)
    calibration = calibration_crops(folder, SPEC, 40)
    assert calibration.shape == (40, 16, 16, 3)
    measured = {crop.tobytes() for crop in first}
    assert len(measured) == 40
    assert not measured & {crop.tobytes() for crop in calibration}
    # A picture's crops don't depend on how many are drawn, on its neighbours, its name or its place.
    assert np.array_equal(evaluation_crops(folder, SPEC, CLASSES, 5).pixels[:5], first[:5])
    one = folder / CLASSES[0] / "one.png"
    shutil.copy(folder / CLASSES[1] / "one.png", one.with_name("another.png"))
    one.rename(one.with_name("renamed.png"))
    more = evaluation_crops(folder, SPEC, CLASSES, 20)
    assert np.array_equal(more.pixels[20:], first)
    assert np.array_equal(more.pixels[:20], first[20:])
    assert more.source == f"20 crops of each of 3 images of {folder}"


def test_labels_are_known_where_every_pictures_is(folder: Path) -> None:
    assert evaluation_crops(folder, SPEC, ("dog", CLASSES[0]), 2).labels is None


def test_what_cannot_be_cropped_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=f"--crops {MAX_CROPS} of each of 2 pictures are 8,192; expected at"
    ):
        evaluation_crops(folder, SPEC, CLASSES, MAX_CROPS)
    (folder / CLASSES[0] / "one.png").write_bytes(b"no picture")
    with pytest.raises(ExportError, match=r"one\.png can't be used: "):
        evaluation_crops(folder, SPEC, CLASSES, 2)


def test_export_measures_on_crops(trained: Trained, tmp_path: Path) -> None:
    from tests.training.test_quantize import command

    photos = write_class_folders(tmp_path / "photos", 3, seed=900)
    asked = ("--run", trained.run, "--model-repository", tmp_path, "--precision", "int8")
    result = command(*asked, "--images", photos, "--crops", 30)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "lights-resnet20-cifar" / "1" / "manifest.json").read_text())
    agreement = document["variants"][1]["agreement"]
    assert agreement["images"] == 3 * 3 * 30
    assert agreement["reference_top1_accuracy"] > 0.5
    assert f"precisions are measured on 30 crops of each of 9 images of {photos}\n" in result.output
    result = command(*asked, "--crops", 30)
    assert result.exit_code == 1
    assert "--crops is for --images; expected these too" in result.output
