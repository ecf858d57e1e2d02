"""A run's splits found again: the very pictures that it learned from, chose by and was scored on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.data_sources import image_rows, write_csv, write_shards
from tests.training.pictures import picture, write_class_folders
from training.class_disjoint import hold_out
from training.config import DataConfig
from training.data import open_dataset
from training.errors import RunError
from training.run_folder import write_splits
from training.run_splits import run_test_split, run_train_split, run_val_split
from training.splits import Dataset, Split

FIND = {"train": run_train_split, "val": run_val_split, "test": run_test_split}


def recorded(run: Path, dataset: Dataset, source: Path | str, holdout: int = 0) -> DataConfig:
    """What a run of `dataset` leaves to find it by."""
    run.mkdir(exist_ok=True)
    write_splits(run, dataset)
    sizes = (len(dataset.train), len(dataset.val), len(dataset.test))
    first = len(dataset.classes) - holdout
    return DataConfig(
        str(source), dataset.rule, *sizes, True, dataset.classes[:first], task=dataset.task,
        holdout_classes=dataset.classes[first:],
    )  # fmt: skip


def assert_same(found: Split, expected: Split) -> None:
    assert list(found.sources) == list(expected.sources)
    assert found.labels.dtype == expected.labels.dtype
    assert np.array_equal(found.labels, expected.labels)


def disturbed(images: Path) -> Path:
    """One of the pictures broken, and two of them the same."""
    (images / "red" / "003.jpg").write_bytes(b"broken")
    shutil.copy(images / "red" / "004.png", images / "red" / "006.jpg")
    return images


def rows(root: Path) -> list[list[str]]:
    found = image_rows(root, 8)
    disturbed(root / "images")
    return found


def folder(root: Path) -> Path:
    disturbed(write_class_folders(root / "photos", 8))
    picture(0, 99).save(root / "photos" / "lost.png")  # in no class
    return root / "photos"


def folder_in_parts(root: Path) -> Path:
    for part, seed in (("Train", 0), ("valid", 500)):
        disturbed(write_class_folders(root / "photos" / part, 8, seed))
    shutil.copy(root / "photos" / "valid" / "red" / "001.png", root / "photos" / "Train" / "red" / "copy.png")
    return root / "photos"


def table(root: Path) -> Path:
    return write_csv(root / "t.csv", ["path", "label"], rows(root))


def table_in_parts(root: Path) -> Path:
    parts = ("train", "val", "train", "test")
    told = [[*row, parts[index % 4]] for index, row in enumerate(rows(root))]
    return write_csv(root / "t.csv", ["path", "label", "split"], [*told, [*told[3][:2], "train"]])


def table_of_many(root: Path) -> Path:
    told = [[path, f"{label};any" if index % 2 else ""] for index, (path, label) in enumerate(rows(root))]
    return write_csv(root / "t.csv", ["path", "labels"], told)


def shards(root: Path) -> Path:
    return write_shards(root, rows(root), ["0.tar", "1.tar"])


def shards_in_parts(root: Path) -> Path:
    return write_shards(root, rows(root), ["train-0.tar", "train-1.tar", "test-0.tar"])


Make = Callable[[Path], Path]
EVERY: list[Make] = [folder, folder_in_parts, table, table_in_parts, table_of_many, shards, shards_in_parts]


@pytest.mark.parametrize("make", EVERY)
def test_every_split_is_found_again(tmp_path: Path, make: Make) -> None:
    source = make(tmp_path)
    dataset = open_dataset(str(source), skip_broken=True)
    assert dataset.names["left_out"]
    config = recorded(tmp_path / "run", dataset, source)
    for part, find in FIND.items():
        assert_same(find(tmp_path / "run", config), getattr(dataset, part))


@pytest.mark.parametrize("make", EVERY)
def test_no_picture_is_in_two_splits(tmp_path: Path, make: Make) -> None:
    """What calibrates, chooses or fits a temperature is never what is reported."""
    source = make(tmp_path)
    dataset = open_dataset(str(source), skip_broken=True)
    config = recorded(tmp_path / "run", dataset, source)
    seen: list[set[bytes]] = []
    for find in FIND.values():
        split = find(tmp_path / "run", config)
        seen.append({split.picture(index).image.tobytes() for index in range(len(split))})
    assert sum(map(len, seen)) == len(set.union(*seen))
    # But for the copies, which are in one split.
    assert len(set.union(*seen)) >= len(dataset.train) + len(dataset.val) + len(dataset.test) - 2


def four_rows(root: Path) -> list[list[str]]:
    """A fourth class, so that two can be held out and two learned."""
    told = rows(root)
    (root / "images" / "yellow").mkdir()
    for number in range(8):
        name = f"images/yellow/{number:03}.png"
        picture(1, 5000 + number).save(root / name)
        told.append([name, "yellow"])
    return told


def four_in_a_folder(root: Path) -> Path:
    four_rows(root)
    return root / "images"


def four_in_a_table(root: Path) -> Path:
    return write_csv(root / "t.csv", ["path", "label"], four_rows(root))


def four_in_shards(root: Path) -> Path:
    return write_shards(root, four_rows(root), ["0.tar", "1.tar"])


@pytest.mark.parametrize("make", [four_in_a_folder, four_in_a_table, four_in_shards])
def test_classes_that_were_held_out_too(tmp_path: Path, make: Make) -> None:
    source = make(tmp_path)
    dataset = hold_out(open_dataset(str(source), skip_broken=True), ("blue", "red"))
    config = recorded(tmp_path / "run", dataset, source, holdout=2)
    assert (config.labels, config.holdout_classes) == (("green", "yellow"), ("blue", "red"))
    for part, find in FIND.items():
        assert_same(find(tmp_path / "run", config), getattr(dataset, part))


def test_digits_need_no_record(tmp_path: Path) -> None:
    dataset = open_dataset("digits")
    config = recorded(tmp_path / "run", dataset, "digits")
    assert not (tmp_path / "run" / "splits.json").exists()
    for part, find in FIND.items():
        found, expected = find(tmp_path / "run", config), getattr(dataset, part)
        assert np.array_equal(np.asarray(found.sources), np.asarray(expected.sources))
        assert np.array_equal(found.labels, expected.labels)


def test_labels_are_the_runs_whatever_classes_came_since(tmp_path: Path) -> None:
    source = table(tmp_path)
    dataset = open_dataset(str(source), skip_broken=True)
    config = recorded(tmp_path / "run", dataset, source)
    picture(0, 1).save(tmp_path / "new.png")
    source.write_text(source.read_text() + "new.png,amber\n")
    assert_same(run_test_split(tmp_path / "run", config), dataset.test)
    with pytest.raises(RunError, match=r"t\.csv: holds images of 'amber', which the run didn't know"):
        run_train_split(tmp_path / "run", config)


def test_what_is_gone_is_told(tmp_path: Path) -> None:
    source = table(tmp_path)
    dataset = open_dataset(str(source), skip_broken=True)
    config = recorded(tmp_path / "run", dataset, source)
    first = dataset.names["test"][0]
    source.write_text("".join(line for line in source.read_text().splitlines(True) if first not in line))
    with pytest.raises(RunError, match=f"1 of the run's test images aren't in it any more, such as {first}"):
        run_test_split(tmp_path / "run", config)
    source.unlink()
    with pytest.raises(RunError, match=r"t\.csv is no regular file.*Name others with --images"):
        run_val_split(tmp_path / "run", config)


def test_runs_of_before_left_out_was_recorded_are_read(tmp_path: Path) -> None:
    source = folder(tmp_path)
    dataset = open_dataset(str(source), skip_broken=True)
    config = recorded(tmp_path / "run", dataset, source)
    names = json.loads((tmp_path / "run" / "splits.json").read_text())
    del names["left_out"]
    (tmp_path / "run" / "splits.json").write_text(json.dumps(names))
    # What was broken is among them, then.
    found = run_train_split(tmp_path / "run", config)
    assert set(found.sources) - set(dataset.train.sources) == {source / "red" / "003.jpg"}
    (tmp_path / "run" / "splits.json").write_text("[]")
    with pytest.raises(RunError, match=r"splits\.json: can't be read"):
        run_train_split(tmp_path / "run", config)
    shutil.rmtree(source)
    with pytest.raises(RunError, match=r"splits\.json"):
        run_test_split(tmp_path / "run", config)
