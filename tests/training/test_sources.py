"""What --data, --images and --calibration may name."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from service.preprocess import Preprocessing
from tests.training.conftest import TINY
from tests.training.data_sources import image_rows, write_csv, write_shards, write_tar
from tests.training.pictures import CLASSES, write_class_folders
from training.cli import main
from training.errors import DataError, ExportError
from training.evaluation import calibration_folder, evaluation_folder
from training.parity_images import folder_images
from training.sources import find_pictures, list_source, source_name

SPEC = Preprocessing(8, 8, 8)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("some/photos", "photos"),
        ("some/photos.v2/", "photos.v2"),
        ("some/list.csv", "list"),
        ("some/list.v2.Parquet", "list.v2"),
        ("some/cats.tar", "cats"),
        ("some/cats/train-{000..009}.tar", "cats"),
        ("some/cats/{train,val}/{0..9}-*.tar", "cats"),
    ],
)
def test_data_have_a_short_name(data: str, name: str) -> None:
    assert source_name(data) == name


def test_the_name_is_the_listings_own(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 3)
    shards = write_shards(tmp_path, rows, ["one.tar"])
    table = write_csv(tmp_path / "list.csv", ["path", "label"], rows)
    for data in (tmp_path / "images", table, shards, shards / "one.tar", f"{shards}/{{one,one}}.tar"):
        assert list_source(str(data)).name == source_name(str(data))


def test_of_parts_the_one_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 8)
    parts = ["train", "train", "val", "test"]
    told = [[*row, parts[index % 4]] for index, row in enumerate(rows)]
    table = write_csv(tmp_path / "list.csv", ["path", "label", "split"], told)
    shards = write_shards(tmp_path, rows, ["train-0.tar", "train-1.tar", "val-0.tar", "test-0.tar"])
    for index, (path, label, part) in enumerate(told):
        target = tmp_path / "folders" / part / label / f"{index}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / path).read_bytes())
    for data in (tmp_path / "folders", table, shards):
        assert len(folder_images(data, SPEC)) == 24
        assert len(calibration_folder(data, SPEC, 100)) == 12
        assert len(calibration_folder(data, SPEC, 5)) == 5
        scored = evaluation_folder(data, SPEC, CLASSES)
        assert len(scored.pixels) == 6
        assert scored.labels is not None
        # The brightest channel tells the class.
        assert np.array_equal(2 - scored.pixels.mean(axis=(1, 2)).argmax(axis=1), scored.labels)
        assert find_pictures(data, ("val",)).labels.count("red") == 2
    assert evaluation_folder(table, SPEC, ("blue", "green")).labels is None


def test_pictures_need_no_labels(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 2)
    table = write_csv(tmp_path / "list.csv", ["path"], [row[:1] for row in rows])
    many = write_csv(tmp_path / "many.csv", ["path", "labels"], [[row[0], "red;blue"] for row in rows])
    content = {row[0].replace("/", "_"): (tmp_path / row[0]).read_bytes() for row in rows}
    shards = write_tar(tmp_path / "bare.tar", content)
    for data in (table, many, shards):
        assert find_pictures(data).labels == [None] * 6
        assert len(calibration_folder(data, SPEC, 100)) == 6
        assert evaluation_folder(data, SPEC, CLASSES).labels is None


def test_numbers_in_shards_go_by_the_names_beside_them(tmp_path: Path) -> None:
    rows = [[path, str(CLASSES.index(label))] for path, label in image_rows(tmp_path, 2)]
    shards = write_shards(tmp_path, rows, ["0.tar"])
    assert evaluation_folder(shards, SPEC, CLASSES).labels is None
    (shards / "classes.txt").write_text("\n".join(CLASSES))
    found = evaluation_folder(shards, SPEC, CLASSES)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: can't be read: No such file"):
        find_pictures(tmp_path / "nowhere", ("test",))
    with pytest.raises(ExportError, match="no images in"):
        find_pictures(tmp_path)
    with pytest.raises(ExportError, match=r"no images in .*t\.csv"):
        find_pictures(write_csv(tmp_path / "t.csv", ["path"], []))
    (write_class_folders(tmp_path / "photos", 3) / "blue" / "000.jpg").write_bytes(b"broken")
    with pytest.raises(ExportError, match=r"blue/000\.jpg can't be used: not an image"):
        folder_images(tmp_path / "photos", SPEC)


@pytest.mark.parametrize("kind", ["table", "shards"])
def test_a_run_on_it_is_exported_and_measured_on_it(tmp_path: Path, kind: str) -> None:
    rows = image_rows(tmp_path, 20)
    table = write_csv(tmp_path / "lights.csv", ["path", "label"], rows)
    shards = write_shards(tmp_path, rows, ["a-0.tar", "a-1.tar"])
    data = {"table": str(table), "shards": f"{shards}/a-{{0..1}}.tar"}[kind]
    run, repository = tmp_path / "run", tmp_path / "models"
    fit = CliRunner().invoke(main, ["fit", "--data", data, *TINY, "--output", str(run)])
    assert fit.exit_code == 0, fit.output
    told = ["export", "--run", str(run), "--model-repository", str(repository)]
    told = ["export", "--run", str(run), "--model-repository", str(repository), "--precision", "int8"]
    if kind == "shards":  # else by its own splits
        some = write_csv(tmp_path / "some.csv", ["path", "label"], rows[::2])
        told += ["--images", str(some), "--calibration", f"{shards}/a-?.tar"]
    export = CliRunner().invoke(main, told)
    assert export.exit_code == 0, export.output
    name = {"table": "lights", "shards": "shards"}[kind]
    manifest = json.loads((repository / f"{name}-resnet20-cifar" / "1" / "manifest.json").read_text())
    assert manifest["labels"] == list(CLASSES)
    assert manifest["provenance"]["training_data"].startswith(f"{name}: 42 images; of each class 15% are")
    assert manifest["variants"][1]["agreement"]["reference_top1_accuracy"] > 0.5
