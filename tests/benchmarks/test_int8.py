"""The accuracy half of benchmarks/int8.py, on a small package and pictures that are made here."""

from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import int8
from tests.packages import LABELS
from tests.precision_packages import colorful, write_precisions

COUNT = 30


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_precisions(tmp_path_factory.mktemp("models"))[0]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the CIFAR-10 archive unpacks; every fifth picture lies in another class's folder."""
    monkeypatch.setattr(int8, "TEST_IMAGES", COUNT)
    for number, pixels in enumerate(colorful(COUNT, 5)):
        label = LABELS[(number + (number % 5 == 0)) % 3]
        (tmp_path / "test" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "test" / label / f"{number}.jpg", quality=95)
    return tmp_path


def test_points_lost_are_of_labelled_test_images(
    package: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = int8._trained(package)
    assert manifest is not None
    figure = int8._accuracy(Namespace(cifar=pictures, quick=False), manifest)
    told = capsys.readouterr().out
    # What lies in the wrong folder is wrong in both precisions.
    assert "precise fp32: 80.00% of 30 test images right" in told
    assert "precise int8: 80.00% of 30 test images right" in told
    assert "right in one precision only: 0 images" in told
    assert (figure.value, figure.bar, figure.holds) == (0.0, 0.5, True)


def test_other_pictures_are_not_measured_on(package: Path, pictures: Path) -> None:
    manifest = int8._trained(package)
    assert manifest is not None
    (pictures / "test" / LABELS[0]).rename(pictures / "test" / "stranger")
    with pytest.raises(SystemExit, match=r"of \['stranger'\] that it doesn't; expected 30"):
        int8._accuracy(Namespace(cifar=pictures, quick=False), manifest)


def test_a_package_without_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not measured: "):
        int8._trained(tmp_path)
    assert int8._trained(None) is None
    with pytest.raises(SystemExit, match=r"not measured: .*int8"):
        int8._trained(write_precisions(tmp_path, [])[0])
