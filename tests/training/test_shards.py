"""WebDataset shards: tar archives of images with their labels."""

import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from service.image import decode_picture
from tests.training.data_sources import image_rows, write_shards, write_tar
from tests.training.pictures import CLASSES, picture, write_class_folders
from training.data import open_dataset
from training.errors import BrokenImages, DataError, SettingError
from training.source import TarMember
from training.splits import Dataset, Split

NAMES = ("a-000.tar", "a-001.tar", "a-002.tar")
Rows = list[list[str]]


def members(split: Split) -> list[TarMember]:
    return [source for source in split.sources if isinstance(source, TarMember)]


def sizes(dataset: Dataset) -> list[int]:
    return [len(split) for split in (dataset.train, dataset.val, dataset.test)]


def refusal(data: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(str(data))
    return str(caught.value)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """Pictures to put into shards, with their rows."""
    root = tmp_path_factory.mktemp("images")
    return root, image_rows(root, 10)


def shards(images: tuple[Path, Rows], where: Path, names: tuple[str, ...], label: str = "txt") -> Path:
    """The pictures' shards, moved to `where`."""
    return write_shards(images[0], images[1], names, label).rename(where)


@pytest.mark.parametrize("label", ["cls", "txt", "json"])
def test_every_sample_is_found_with_its_picture_and_label(
    images: tuple[Path, Rows], tmp_path: Path, label: str
) -> None:
    root, rows = images
    dataset = open_dataset(str(shards(images, tmp_path / "lights", NAMES, label)))
    assert (dataset.name, dataset.classes, dataset.task) == ("lights", CLASSES, "single_label")
    assert sizes(dataset) == [18, 6, 6]
    seen = set()
    for split in (dataset.train, dataset.val, dataset.test):
        for index, member in enumerate(members(split)):
            path, said = rows[int(Path(member.name).stem)]
            assert dataset.classes[int(split.labels[index])] == said
            expected = decode_picture((root / path).read_bytes()).image
            assert np.array_equal(np.asarray(split.picture(index).image), np.asarray(expected))
            seen.add(path)
    assert len(seen) == 30
    assert dataset.names["test"] == [
        str(member.shard.name + "/" + member.name) for member in members(dataset.test)
    ]
    assert "by the SHA-256 of each sample's key, copies together" in dataset.rule


def test_a_sample_stays_in_its_part_whatever_shard_it_is_in(
    images: tuple[Path, Rows], tmp_path: Path
) -> None:
    one = open_dataset(str(shards(images, tmp_path / "one", NAMES)))
    two = open_dataset(str(shards(images, tmp_path / "two", ("b-0.tar",))))
    for part in ("train", "val", "test"):
        ours = {member.name for member in members(getattr(one, part))}
        assert ours == {member.name for member in members(getattr(two, part))}


def test_shards_that_webdataset_itself_wrote_are_read(images: tuple[Path, Rows], tmp_path: Path) -> None:
    root, rows = images
    with webdataset.ShardWriter(str(tmp_path / "w-%02d.tar"), maxcount=11, verbose=0) as writer:
        for index, (path, label) in enumerate(rows):
            key = f"folder.of/{index:03}"
            image = {Path(path).suffix[1:]: (root / path).read_bytes()}
            writer.write({"__key__": key, **image, "cls": CLASSES.index(label), "json": {"note": "x"}})
    dataset = open_dataset(str(tmp_path))
    assert dataset.classes == ("0", "1", "2")
    for split in (dataset.train, dataset.val, dataset.test):
        for index, member in enumerate(members(split)):
            assert rows[int(Path(member.name).stem)][1] == CLASSES[int(split.labels[index])]
    assert sum(sizes(dataset)) == 30
    (tmp_path / "classes.txt").write_text("blue\n green\nred\n")
    assert open_dataset(str(tmp_path)).classes == CLASSES
    (tmp_path / "classes.txt").write_text("blue\ngreen\n")
    assert "have the class 2, but classes.txt or labels.txt there names 0 to 1" in refusal(tmp_path)
    (tmp_path / "classes.txt").write_text("blue\ngreen\nblue\n")
    assert "classes.txt has a line that is empty or stands twice" in refusal(tmp_path)


def test_numbers_are_ordered_by_value(images: tuple[Path, Rows], tmp_path: Path) -> None:
    root, rows = images
    numbers = {"blue": "10", "green": "9", "red": "2"}
    write_shards(root, [[path, numbers[label]] for path, label in rows], NAMES).rename(tmp_path / "s")
    assert open_dataset(str(tmp_path / "s")).classes == ("2", "9", "10")


@pytest.mark.parametrize(
    "pattern", ["a-{000..002}.tar", "a-*.tar", "{a-000,a-001,a-002}.tar", "a-00[0-2].tar"]
)
def test_patterns_name_shards(images: tuple[Path, Rows], tmp_path: Path, pattern: str) -> None:
    folder = shards(images, tmp_path / "s", (*NAMES, "b-000.tar"))
    (folder / "b-000.tar").rename(folder / "other.TAR")
    dataset = open_dataset(f"{folder}/{pattern}")
    assert (dataset.name, sum(sizes(dataset))) == ("s", 23)
    assert {member.shard.name for member in members(dataset.train)} == set(NAMES)
    assert sum(sizes(open_dataset(str(folder)))) == 30


def test_missing_shards_are_named(images: tuple[Path, Rows], tmp_path: Path) -> None:
    folder = shards(images, tmp_path / "s", NAMES)
    assert (
        refusal(f"{folder}/a-{{001..004}}.tar")
        == f"shards are missing: {folder}/a-003.tar, {folder}/a-004.tar"
    )
    assert "a-001010.tar and 6 more" in refusal(f"{folder}/a-{{001006..001016}}.tar")
    assert "with braces that don't match" in refusal(f"{folder}/a-{{001..004.tar")
    assert refusal(f"{folder}/nothing.tar").startswith("shards are missing: ")
    assert "names more than 100,000 shards" in refusal(f"{folder}/a-{{0..99999999}}.tar")


@pytest.mark.parametrize(
    "names",
    [
        ("train-000.tar", "train-001.tar", "val-000.tar", "test-000.tar"),
        ("photos_TRAIN_0.tar", "photos_train1.tar", "photos_validation_0.tar", "photos_testing.tar"),
        ("train/0.tar", "train/1.tar", "Val/0.tar", "test/0.tar"),
    ],
)
def test_parts_are_told_by_names(images: tuple[Path, Rows], tmp_path: Path, names: tuple[str, ...]) -> None:
    flat = shards(images, tmp_path / "flat", ("0.tar", "1.tar", "2.tar", "3.tar"))
    for index, name in enumerate(names):
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (flat / f"{index}.tar").rename(tmp_path / "s" / name)
    dataset = open_dataset(str(tmp_path / "s"))
    for split, told in ((dataset.train, names[:2]), (dataset.val, names[2:3]), (dataset.test, names[3:])):
        assert {member.shard.relative_to(tmp_path / "s").as_posix() for member in members(split)} == set(told)
    assert sizes(dataset) == [16, 7, 7]
    assert dataset.rule == "the train shards, the val shards and the test shards as given"
    (tmp_path / "s" / names[2]).unlink()
    dataset = open_dataset(str(tmp_path / "s"))
    assert "test is the test shards as given; of each class in the train shards 15% are val" in dataset.rule
    assert {member.shard for member in members(dataset.val)} <= {tmp_path / "s" / name for name in names[:2]}


def test_names_of_parts_that_do_not_fit_are_refused(images: tuple[Path, Rows], tmp_path: Path) -> None:
    folder = shards(images, tmp_path / "s", ("train-0.tar", "other-0.tar"))
    assert "named after parts: 1 of no part, 1 train; expected train with val or test" in refusal(folder)
    (folder / "other-0.tar").rename(folder / "train-val.tar")
    assert "train-val.tar is named after train and val; expected one of them" in refusal(folder)
    (folder / "train-val.tar").unlink()
    assert "named after parts: 1 train; expected train with" in refusal(folder)


def test_several_labels(images: tuple[Path, Rows], tmp_path: Path) -> None:
    root, rows = images
    content: dict[str, bytes] = {}
    for index, (path, label) in enumerate(rows):
        content[f"{index}.img{Path(path).suffix}"] = (root / path).read_bytes()
        said: object = [] if index % 10 == 0 else [label, "any", label]
        content[f"{index}.json"] = json.dumps({"labels": said} if index % 2 else said).encode()
    write_tar(tmp_path / "s.tar", content)
    dataset = open_dataset(str(tmp_path / "s.tar"))
    assert (dataset.task, dataset.classes) == ("multi_label", ("any", *CLASSES))
    for split in (dataset.train, dataset.val, dataset.test):
        for member, row in zip(members(split), split.labels, strict=True):
            index = int(Path(member.name).name.split(".")[0])
            expected = [] if index % 10 == 0 else ["any", rows[index][1]]
            assert [dataset.classes[label] for label in np.flatnonzero(row)] == expected


def test_broken_pictures_and_archives_are_in_one_list(images: tuple[Path, Rows], tmp_path: Path) -> None:
    folder = shards(images, tmp_path / "s", (*NAMES, "a-003.tar", "a-004.tar"))
    write_tar(folder / "a-005.tar", {"x.jpg": b"no picture", "x.txt": b"red", "y.png": b"", "y.txt": b"blue"})
    whole = (folder / "a-003.tar").read_bytes()
    with tarfile.open(folder / "a-003.tar") as archive:
        third = archive.getmembers()[4]
    (folder / "a-003.tar").write_bytes(whole[: third.offset_data + third.size // 2])
    whole = (folder / "a-004.tar").read_bytes()
    with tarfile.open(folder / "a-004.tar") as archive:
        third = archive.getmembers()[4]
    (folder / "a-004.tar").write_bytes(whole[: third.offset] + b"x" * 512 + whole[third.offset + 512 :])
    os.mkfifo(folder / "a-006.tar")
    (folder / "a-007.tar").write_bytes(b"not an archive")
    with pytest.raises(BrokenImages) as caught:
        open_dataset(str(folder))
    message = str(caught.value)
    assert message.startswith(f"6 broken image files in {folder}:")
    for line in (
        "  a-005.tar/x.jpg: not an image",
        "  a-005.tar/y.png: the image is empty",
        "  a-003.tar: broken or cut short after 5 members: unexpected end of data",
        "  a-004.tar: broken or cut short after 4 members: expected a header or the end's mark",
        "  a-006.tar: not a regular file",
        "  a-007.tar: broken or cut short after 0 members",
    ):
        assert line in message
    dataset = open_dataset(str(folder), skip_broken=True)
    # Of the six samples in each damaged one the two before the damage are left.
    assert sum(sizes(dataset)) == 18 + 2 + 2
    assert dataset.notes == ("\n".join(["left out 6 broken image files:", *message.splitlines()[1:7]]),)
    assert dataset.names["left_out"] == ["a-005.tar/x.jpg", "a-005.tar/y.png"]


def test_an_archive_that_shrinks_later_is_told(images: tuple[Path, Rows], tmp_path: Path) -> None:
    folder = shards(images, tmp_path / "s", NAMES)
    dataset = open_dataset(str(folder))
    last = max(members(dataset.train), key=lambda member: (member.shard, member.offset))
    os.truncate(last.shard, last.offset + 10)
    with pytest.raises(Exception, match=f"cut short: 10 of {last.size} bytes"):
        dataset.train.picture(list(dataset.train.sources).index(last))


def one(tmp_path: Path, content: dict[str, bytes]) -> str:
    return refusal(write_tar(tmp_path / "s.tar", content))


def test_samples_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    png = b"image"
    assert "s.tar/a.png has no label; expected .cls, .txt or .json beside the image" in one(
        tmp_path, {"a.png": png}
    )
    two = {"a.left.png": png, "a.right.jpg": png, "a.cls": b"1"}
    assert "s.tar/a has 2 images (left.png, right.jpg); expected one a sample" in one(tmp_path, two)
    assert "s.tar: a.png: duplicate file name in tar file png" in refusal(_twice(tmp_path / "s.tar", "a.png"))
    for suffix, text, said in (
        ("cls", b"", "s.tar/a.cls has the label ''; expected a text that can be printed, or a number"),
        ("cls", b"\xff", "s.tar/a.cls can't be read as UTF-8"),
        ("json", b"{", "s.tar/a.json can't be read as JSON"),
        ("json", b"1.5", "s.tar/a.json has the label 1.5; expected a text"),
        ("json", b"true", "s.tar/a.json has the label True; expected a text"),
        ("json", b'{"labels": 3}', "s.tar/a.json: labels is 3; expected a list"),
        ("json", b'{"labels": [], "label": 3}', "s.tar/a.json has label and labels"),
        ("json", b'{"other": 3}', "s.tar/a.png has no label"),
        ("json", b"[" * 100_000, "s.tar/a.json can't be read as JSON"),
        ("txt", b"x" * 1_100_000, "s.tar/a.txt has 1,100,000 bytes; expected a class"),
    ):
        assert said in one(tmp_path, {"a.png": png, f"a.{suffix}": text})
    mixed = {"a.png": png, "a.cls": b"1", "b.png": png, "b.json": b"[1]"}
    assert "s.tar/a.png has one label and s.tar/b.png a list of them; expected the same of all" in one(
        tmp_path, mixed
    )
    assert "has no samples with an image in 1 shards" in one(tmp_path, {"a.txt": b"x"})
    assert "has 1 class ('1') to learn" in one(tmp_path, {"a.png": png, "a.cls": b"1"})


def _twice(file: Path, name: str) -> Path:
    with tarfile.open(file, "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo(name))
    return file


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_shards_are_refused(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "s.tar", mode) as archive:  # type: ignore[call-overload]  # a variable mode
        archive.addfile(tarfile.TarInfo("a.png"))
    assert "s.tar is compressed" in refusal(tmp_path / "s.tar")
    assert "expected a plain tar archive" in refusal(tmp_path / "s.tar")


def test_no_member_leads_out_of_the_archive(images: tuple[Path, Rows], tmp_path: Path) -> None:
    folder = shards(images, tmp_path / "s", NAMES)
    secret = tmp_path / "secret.png"
    picture(0, 1).save(secret)
    with tarfile.open(folder / "more.tar", "w") as archive:
        for name, kind, target in (
            ("link.png", tarfile.SYMTYPE, str(secret)),
            ("hard.png", tarfile.LNKTYPE, str(secret)),
            ("pipe.png", tarfile.FIFOTYPE, ""),
            ("inner", tarfile.DIRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("._0001.png"))
        archive.addfile(tarfile.TarInfo("__meta__/a.json"))
        archive.addfile(tarfile.TarInfo("readme.md"))
    dataset = open_dataset(str(folder))
    assert sum(sizes(dataset)) == 30
    said = "4 files were passed over: 3 link or special file, 1 sample without an image"
    assert dataset.notes == (said,)


def test_archives_beside_class_folders_are_no_shards(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 4)
    write_tar(root / "download.tar", {"a.png": b"x"})
    assert open_dataset(str(root)).classes == CLASSES


def test_without_the_library_the_extra_is_named(
    images: tuple[Path, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(images, tmp_path / "s", NAMES)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(SettingError, match=r"needs webdataset.*pip install 'fovea-serving\[train\]'"):
        open_dataset(str(folder))
