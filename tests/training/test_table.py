"""Tables of images, CSV and Parquet."""

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.training.data_sources import Cells, image_rows, write_csv
from tests.training.pictures import CLASSES, picture, read_folder, write_class_folders
from training.data import open_dataset
from training.errors import BrokenImages, DataError, SettingError
from training.splits import Dataset, Split


def paths(split: Split) -> list[str]:
    return [str(source) for source in split.sources]


def sizes(dataset: Dataset) -> list[int]:
    return [len(split) for split in (dataset.train, dataset.val, dataset.test)]


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(str(file))
    return str(caught.value)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """Pictures that no test changes, with their rows."""
    root = tmp_path_factory.mktemp("kept")
    return root, image_rows(root, 20)


def test_a_table_is_split_as_the_folder_is(kept: tuple[Path, list[list[str]]]) -> None:
    root, rows = kept
    # Of paths relative to the folder of the same pictures, in another order, the same parts are made.
    table = write_csv(
        root / "images" / "list.csv", ["path", "label"], [[row[0][7:], row[1]] for row in rows[::-1]]
    )
    dataset, folder = open_dataset(str(table)), read_folder(root / "images")
    assert (dataset.name, dataset.classes, dataset.task) == ("list", CLASSES, "single_label")
    assert sizes(dataset) == [42, 9, 9]
    for part in ("train", "val", "test"):
        ours, theirs = getattr(dataset, part), getattr(folder, part)
        assert sorted(paths(ours)) == sorted(paths(theirs))
        assert [CLASSES[label] for label in ours.labels] == [Path(path).parent.name for path in paths(ours)]
    assert "by the SHA-256 of each path relative to the table's folder" in dataset.rule


@pytest.mark.parametrize("absolute", [False, True])
def test_the_folder_a_table_lies_in_may_move(tmp_path: Path, absolute: bool) -> None:
    names = []
    for place in ("one", "two"):
        root = tmp_path / place
        root.mkdir()
        rows = image_rows(root, 5)
        where = f"{root}/" if absolute else "./"
        table = write_csv(
            root / "list.csv", ["path", "label"], [[where + path, label] for path, label in rows]
        )
        names.append(open_dataset(str(table)).names)
    assert names[0] == names[1]
    assert all(name.startswith("images/") for name in names[0]["test"])


def test_files_elsewhere_are_named_in_full(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    rows = [[str(tmp_path / path), label] for path, label in image_rows(tmp_path, 4)]
    dataset = open_dataset(str(write_csv(tmp_path / "tables" / "t.csv", ["path", "label"], rows)))
    assert set(dataset.names["test"]) <= {path for path, _ in rows}
    assert sizes(dataset) == [6, 3, 3]


def test_a_link_to_a_table_is_the_table(kept: tuple[Path, list[list[str]]], tmp_path: Path) -> None:
    root, rows = kept
    (tmp_path / "link.csv").symlink_to(write_csv(root / "linked.csv", ["path", "label"], rows))
    assert set(paths(open_dataset(str(tmp_path / "link.csv")).train)) <= {
        str(root / path) for path, _ in rows
    }


def test_parts_are_taken_as_given_by_any_of_their_names(kept: tuple[Path, list[list[str]]]) -> None:
    root, rows = kept
    names = ["Training", "VALID", "testing", "train"]
    told = [[path, label, names[index % 4]] for index, (path, label) in enumerate(rows)]
    dataset = open_dataset(str(write_csv(root / "parts.csv", ["path", "label", "split"], told)))
    given = Counter(row[2] for row in told)
    assert sizes(dataset) == [given["Training"] + given["train"], given["VALID"], given["testing"]]
    assert paths(dataset.val) == [str(root / path) for path, _, part in told if part == "VALID"]
    assert dataset.rule == "the train rows, the val rows and the test rows as given"


@pytest.mark.parametrize("scored", ["val", "test"])
def test_of_train_and_one_more_the_latter_is_reported(
    kept: tuple[Path, list[list[str]]], scored: str
) -> None:
    root, rows = kept
    told = [[path, label, scored if index % 4 == 0 else "train"] for index, (path, label) in enumerate(rows)]
    dataset = open_dataset(str(write_csv(root / f"{scored}.csv", ["path", "label", "split"], told)))
    assert paths(dataset.test) == [str(root / path) for path, _, part in told if part == scored]
    assert sizes(dataset) == [39, 6, 15]
    assert set(paths(dataset.val)) | set(paths(dataset.train)) == {
        str(root / path) for path, _, part in told if part == "train"
    }


def test_parquet_says_the_same_as_csv(kept: tuple[Path, list[list[str]]]) -> None:
    root, rows = kept
    columns = {
        "LABEL": [label for _, label in rows],
        "id": list(range(60)),
        "Path": [path for path, _ in rows],
    }
    table = pa.table(columns)
    table = table.set_column(0, "LABEL", table["LABEL"].dictionary_encode())
    parquet.write_table(table, root / "list.parquet", row_group_size=7)
    dataset = open_dataset(str(root / "list.parquet"))
    other = open_dataset(str(write_csv(root / "list.csv", ["path", "label"], rows)))
    assert dataset.names == other.names
    assert np.array_equal(dataset.train.labels, other.train.labels)


def test_classes_that_are_numbers_are_ordered_by_value(kept: tuple[Path, list[list[str]]]) -> None:
    root, rows = kept
    numbers = {"blue": "10", "green": "9", "red": "2"}
    table = write_csv(
        root / "numbers.csv", ["path", "label"], [[path, numbers[label]] for path, label in rows]
    )
    assert open_dataset(str(table)).classes == ("2", "9", "10")
    whole = pa.table(
        {"path": [path for path, _ in rows], "label": [int(numbers[label]) for _, label in rows]}
    )
    parquet.write_table(whole, root / "numbers.parquet")
    assert open_dataset(str(root / "numbers.parquet")).classes == ("2", "9", "10")


MANY = {"blue": "blue; cold", "green": "green", "red": "warm|red|warm"}


@pytest.mark.parametrize("kind", ["csv", "text.parquet", "list.parquet"])
def test_several_labels(kept: tuple[Path, list[list[str]]], kind: str) -> None:
    root, rows = kept
    told = [[path, "" if index % 10 == 9 else MANY[label]] for index, (path, label) in enumerate(rows)]
    file = root / f"many.{kind}"
    if kind == "csv":
        write_csv(file, ["path", "labels"], told)
    else:
        cells: list[object] = [labels or None for _, labels in told]
        if kind == "list.parquet":
            cells = [
                [part.strip() for part in labels.replace("|", ";").split(";")] if labels else []
                for _, labels in told
            ]
        parquet.write_table(pa.table({"path": [path for path, _ in told], "labels": cells}), file)
    dataset = open_dataset(str(file))
    assert (dataset.task, dataset.classes) == ("multi_label", ("blue", "cold", "green", "red", "warm"))
    assert sizes(dataset) == [42, 9, 9]
    expected = {
        str(root / path): {part.strip() for part in labels.replace("|", ";").split(";")} - {""}
        for path, labels in told
    }
    for split in (dataset.train, dataset.val, dataset.test):
        assert split.labels.dtype == np.uint8
        assert split.labels.shape == (len(split), 5)
        for path, row in zip(paths(split), split.labels, strict=True):
            assert {dataset.classes[label] for label in np.flatnonzero(row)} == expected[path]
        assert split.class_counts(5).min() >= 2


def test_the_smallest_of_many_labels_is_refused_by_name(kept: tuple[Path, list[list[str]]]) -> None:
    root, rows = kept
    told = [[path, f"{label};rare" if index < 2 else label] for index, (path, label) in enumerate(rows)]
    message = refusal(write_csv(root / "rare.csv", ["path", "labels"], told))
    assert message.startswith("class 'rare' has 2 usable images; at least 3 are needed")


def test_broken_files_are_all_listed(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 10)
    (tmp_path / "images" / "red" / "001.png").write_bytes(b"")
    (tmp_path / "images" / "blue" / "002.png").unlink()
    os.mkfifo(tmp_path / "images" / "green" / "pipe.jpg")
    rows += [["images/green/pipe.jpg", "green"], ["images/red", "red"]]
    table = write_csv(tmp_path / "t.csv", ["path", "label"], rows)
    with pytest.raises(BrokenImages) as caught:
        open_dataset(str(table))
    message = str(caught.value)
    assert message.startswith(f"4 broken image files in {table}:")
    for line in (
        "  images/red/001.png: the image is empty",
        "  images/blue/002.png: can't be read: No such file or directory",
        "  images/green/pipe.jpg: not a regular file",
        "  images/red: not a regular file",
    ):
        assert line in message
    dataset = open_dataset(str(table), skip_broken=True)
    assert sum(sizes(dataset)) == 28
    assert dataset.notes == ("\n".join(["left out 4 broken image files:", *message.splitlines()[1:5]]),)
    assert set(dataset.names["left_out"]) == {
        "images/red/001.png", "images/blue/002.png", "images/green/pipe.jpg", "images/red",
    }  # fmt: skip


def test_copies_and_rows_that_stand_twice_stay_together(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 10)
    for path, label in rows[::3]:
        copy = str(Path(path).with_stem(f"copy-of-{Path(path).stem}"))
        shutil.copy(tmp_path / path, tmp_path / copy)
        rows += [[copy, label], [path, label]]
    dataset = open_dataset(str(write_csv(tmp_path / "t.csv", ["path", "label"], rows)))
    contents = [
        {Path(path).read_bytes() for path in paths(split)}
        for split in (dataset.train, dataset.val, dataset.test)
    ]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 30
    assert sum(sizes(dataset)) == len(rows)


def test_what_is_scored_on_is_left_out_of_training(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 8)
    told = [
        [path, label, ("train", "train", "val", "test")[index % 4]]
        for index, (path, label) in enumerate(rows)
    ]
    given_to_test = told[3]
    told.append([given_to_test[0], given_to_test[1], "train"])
    dataset = open_dataset(str(write_csv(tmp_path / "t.csv", ["path", "label", "split"], told)))
    assert sizes(dataset) == [12, 6, 6]
    assert dataset.notes == ("left out 1 image with copies in a part that is scored on",)
    assert not set(paths(dataset.train)) & set(paths(dataset.test))


def test_one_image_with_other_labels_is_refused(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 4)
    message = refusal(write_csv(tmp_path / "t.csv", ["path", "label"], [*rows, [rows[0][0], "red"]]))
    assert f"{rows[0][0]} ('blue') and {rows[0][0]} ('red')" in message
    many = [[path, f"{label};x"] for path, label in rows]
    message = refusal(write_csv(tmp_path / "t.csv", ["path", "labels"], [*many, [rows[0][0], ""]]))
    assert f"{rows[0][0]} ('blue', 'x') and {rows[0][0]} (none)" in message


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        (["path", "label"], ["", "red"], "row 5, column path: the value is ''; expected the path of"),
        (["path", "label"], ["a\0b", "red"], "row 5, column path: the value is 'a\\x00b'"),
        (["path", "label"], ["a.jpg", " "], "row 5, column label: the value is ' '; expected a class"),
        (["path", "label"], ["a.jpg", "r\ned"], "row 5, column label: the value is 'r\\ned'"),
        (
            ["path", "label", "split"],
            ["a.jpg", "red", "dev"],
            "row 5, column split: the value is 'dev'; expected train, training, val, valid, validation, test",
        ),
        (["path", "label", "split"], ["a.jpg", "red", ""], "row 5, column split: the value is ''"),
        (["path", "labels"], ["a.jpg", "x;\x07"], "row 5, column labels: the value is 'x;\\x07'"),
        (["path", "label"], ["a.jpg"], "row 5 has 1 cell; expected 2, one for each column: path, label"),
        (["path", "label"], ["a.jpg", "b", "c"], "row 5 has 3 cells; expected 2"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_used_is_named_by_row_and_column(
    tmp_path: Path, header: Cells, row: Cells, said: str
) -> None:
    # A blank line counts, and so does the break inside a cell.
    good = ["x.jpg", "red", "train"][: len(header)]
    lines = [",".join(header), '"x\ny.jpg",' + ",".join(good[1:]), "", ",".join(f'"{cell}"' for cell in row)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert refusal(tmp_path / "t.csv").startswith(f"{tmp_path / 't.csv'}: {said}")


def test_cells_of_parquet_are_checked_likewise(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    for column, cells in (
        ("path", {"path": ["a", None], "label": ["x", "y"]}),
        ("path", {"path": [1, 2], "label": ["x", "y"]}),
        ("label", {"path": ["a", "b"], "label": [0.5, 1.5]}),
        ("labels", {"path": ["a", "b"], "labels": [["x"], ["y", None]]}),
    ):
        parquet.write_table(pa.table(cells), file)
        row = 1 if column == "label" or cells["path"] == [1, 2] else 2
        assert refusal(file).startswith(f"{file}: row {row}, column {column}: the value is")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; expected a header"),
        ("path,label\n", "has no rows"),
        ("file,label\na,b\n", "has no column path; expected a header with path, label or labels, and"),
        ("file,label\na,b\n", "but it has 'file', 'label'"),
        ("path,split\na,train\n", "has no column label or labels, but path, split"),
        ("path,label,labels\na,b,c\n", "has the columns label and labels; expected label for one class"),
        ("path,label,Path\na,b,c\n", "has two columns path; expected one"),
        ("path,label\na,b\n", "has 1 class ('b') to learn; expected at least 2"),
        ("path,label,split\na,b,train\nc,d,train\n", "column split gives 2 train; expected train with val"),
        ("path,label,split\na,b,val\nc,d,test\n", "column split gives 1 val, 1 test; expected train with"),
        ('path,label\n"a,b\n', "row 2 or after it: unexpected end of data"),
        (
            "path,label,split\na,b,train\nc,d,train\ne,f,test\n",
            "row 4, column label: 'f' is no class of the train rows, which have b, d",
        ),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_trained_on_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert said in refusal(tmp_path / "t.csv")


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    assert "nowhere.csv is no regular file; expected a .csv or .parquet table" in refusal(
        tmp_path / "nowhere.csv"
    )
    (tmp_path / "t.parquet").write_bytes(b"path,label\na,b\n" * 10)
    assert "can't be read as Parquet" in refusal(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_bytes("path,label\nä,b\n".encode("latin-1"))
    assert "row 1 or after it: isn't UTF-8" in refusal(tmp_path / "t.csv")


def test_a_byte_order_mark_spaces_and_line_ends_of_windows_do_no_harm(
    kept: tuple[Path, list[list[str]]],
) -> None:
    root, rows = kept
    text = "Path, Label\r\n" + "".join(f'"{path}", {label} \r\n' for path, label in rows)
    (root / "windows.CSV").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert sizes(open_dataset(str(root / "windows.CSV"))) == [42, 9, 9]


def test_a_folder_may_be_called_like_a_table(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos.csv", 4)
    assert open_dataset(str(root)).name == "photos.csv"


def test_parquet_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingError, match=r"needs pyarrow.*pip install 'fovea-serving\[train\]'"):
        open_dataset(str(tmp_path / "t.parquet"))


def test_any_kind_of_image_is_read_whatever_its_name(tmp_path: Path) -> None:
    rows = []
    for index, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")):
        for label in (0, 1):
            picture(label, 50 * index + label).save(tmp_path / f"{index}-{label}", kind)
            rows.append([f"{index}-{label}", CLASSES[label]])
    assert sum(sizes(open_dataset(str(write_csv(tmp_path / "t.csv", ["path", "label"], rows))))) == 12
