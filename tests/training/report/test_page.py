"""The page: complete, alone, and with a stranger's names as text."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.training.evaluate.known import Known
from tests.training.noisy import NAMES, Noisy
from training.cli import main
from training.errors import RunError
from training.evaluate.data import LabelledPictures, run_pictures
from training.evaluate.evaluation import evaluate
from training.evaluate.package import PackageTarget
from training.evaluate.run import RunTarget
from training.report.write import write_report
from training.splits import Split

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Every tag, attribute and piece of text; fails where tags don't close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        # A cell or a row may stay open in HTML; here none does.
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def headings(self) -> list[str]:
        return [tag for tag, _ in self.tags if tag == "h2"]


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text("utf-8"))
    reader.close()
    assert reader._open == []
    return reader


@pytest.fixture(scope="module")
def reported(noisy: Noisy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    target = RunTarget(noisy.run, device="cpu")
    write_report(folder, evaluate(target, run_pictures(noisy.run)), target)
    return folder


def test_it_needs_nothing_but_itself(reported: Path) -> None:
    reader = read(reported / "report.html")
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "base"}
    for tag, attributes in reader.tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            if value is not None:
                assert value.startswith("#" if tag == "a" else "data:image/"), (tag, value[:60])
    text = (reported / "report.html").read_text("utf-8")
    assert "url(" not in text
    assert "@import" not in text


def test_it_has_every_part(reported: Path) -> None:
    reader = read(reported / "report.html")
    parts = {attributes.get("id") for tag, attributes in reader.tags if tag == "section"}
    assert parts == {
        "summary", "curves", "confusion", "calibration", "classes", "mistakes", "neighbours", "recipe",
    }  # fmt: skip
    links = {attributes["href"] for tag, attributes in reader.tags if tag == "a"}
    assert links == {f"#{part}" for part in parts}
    text = " ".join(reader.text)
    for shown in (
        "accuracy@1",
        "Grad-CAM",
        "Recall@1",
        "ECE",
        "learning rate",
        "temperature",
        "resnet20-cifar",
    ):
        assert shown in text
    overlays = [
        attributes
        for tag, attributes in reader.tags
        if (attributes.get("alt") or "").startswith("where the network saw")
    ]
    assert overlays


def test_names_are_text(reported: Path) -> None:
    reader = read(reported / "report.html")
    assert "b" in {tag for tag, _ in reader.tags}, "the page's own"
    text = "".join(reader.text)
    for name in NAMES:
        assert name in text
    assert "<b>co" not in (reported / "report.html").read_text("utf-8")


def test_numbers_and_answers_stand_beside_it(reported: Path, noisy: Noisy) -> None:
    numbers = json.loads((reported / "metrics.json").read_text("utf-8"))
    with (reported / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == numbers["data"]["answered"] == 27
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / 27 == pytest.approx(numbers["metrics"]["top1_accuracy"])
    test = json.loads((noisy.run / "splits.json").read_text())["test"]
    assert [row["image"] for row in rows] == test
    assert all(0 < float(row["probability"]) <= 1 for row in rows)
    assert {row[f"neighbour_{i}"] for row in rows for i in (1, 5)} <= set(test)


def test_digests_stay_on_one_line_and_can_be_read_whole(reported: Path) -> None:
    weights = json.loads((reported / "metrics.json").read_text("utf-8"))["target"]["weights"]
    reader = read(reported / "report.html")
    titles = [attributes["title"] for tag, attributes in reader.tags if attributes.get("class") == "digest"]
    assert weights in titles
    assert all(title and len(title) >= 32 for title in titles)


def test_epochs_that_did_as_well_are_named(noisy: Noisy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(noisy.run, run)
    target = RunTarget(run, device="cpu")
    best = target.loaded.checkpoint.epoch
    lines = [json.dumps({"epoch": epoch, "val_accuracy": 0.5}) for epoch in (best, best + 1, best + 2)]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    found = evaluate(target, run_pictures(noisy.run))
    text = " ".join(" ".join(read(write_report(tmp_path / "report", found, target)).text).split())
    assert f"Epochs {best + 1}, {best + 2} did as well on val" in text


def test_of_a_package_it_says_why_there_is_no_overlay(noisy: Noisy, tmp_path: Path) -> None:
    target = PackageTarget(noisy.package)
    reader = read(write_report(tmp_path, evaluate(target, run_pictures(noisy.run)), target))
    text = " ".join(reader.text)
    assert "a package or a server can't give" in text
    assert not any((one.get("alt") or "").startswith("where the network saw") for _, one in reader.tags)
    assert "Training" not in text.split("Summary")[1][:200]


def made(count: int, classes: int, several: bool) -> tuple[tuple[str, ...], LabelledPictures]:
    draw = np.random.default_rng(0)
    labels = tuple(f"<i>class {i:04}</i>" for i in range(classes))
    sources = draw.integers(0, 256, (count, 12, 12, 3), np.uint8)
    truth = (
        (draw.random((count, classes)) < 0.3).astype(np.uint8)
        if several
        else draw.integers(0, classes, count)
    )
    return labels, LabelledPictures(Split(sources, truth), labels, "made up")


@pytest.mark.parametrize(("task", "classes"), [("single_label", 1000), ("multi_label", 4), ("embedding", 5)])
def test_any_task_and_any_number_of_classes(task: str, classes: int, tmp_path: Path) -> None:
    labels, pictures = made(60, classes, task == "multi_label")
    has_classes = task != "embedding"
    said = np.random.default_rng(1).normal(size=(60, classes)).tolist()
    target = Known(labels if has_classes else (), said, task=task)
    page = write_report(tmp_path / "report", evaluate(target, pictures), target)
    text = " ".join(read(page).text)
    assert "<i>" not in page.read_text("utf-8")
    assert ("Confusion" in text) == (task == "single_label")
    assert ("Calibration" in text) == has_classes
    if task == "single_label":
        assert "of 1,000 classes that are mixed up most often" in text
        assert 15 <= len(re.findall(r'<th scope="row"', page.read_text("utf-8"))) <= 20
    if task == "embedding":
        assert "Nearest neighbours" in text
    assert page.stat().st_size < 3_000_000


def test_the_command_leaves_page_and_card_in_the_run(noisy: Noisy, tmp_path: Path) -> None:
    said = CliRunner().invoke(
        main, ["report", str(noisy.run), "--output", str(tmp_path / "out"), "--device", "cpu"]
    )
    assert said.exit_code == 0, said.output
    assert f"the report is {tmp_path}/out/report.html" in said.output
    assert (tmp_path / "out" / "report.html").exists()
    card = (noisy.run / "MODEL_CARD.md").read_text("utf-8")
    (noisy.run / "MODEL_CARD.md").unlink()
    assert "accuracy@1" in card


def test_the_run_can_be_named_as_for_export(noisy: Noisy, tmp_path: Path) -> None:
    options = ["--output", str(tmp_path / "out"), "--device", "cpu"]
    said = CliRunner().invoke(main, ["report", "--run", str(noisy.run), *options])
    assert said.exit_code == 0, said.output
    assert (tmp_path / "out" / "report.html").is_file()
    said = CliRunner().invoke(main, ["report", str(noisy.run), "--run", str(tmp_path)])
    assert said.exit_code == 1
    assert said.output == (
        f"Error: both RUN {noisy.run} and --run {tmp_path} are given; expected one of them\n"
    )


def test_a_folder_that_cannot_be_written_to_is_one_line(noisy: Noisy, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = PackageTarget(noisy.package)
    found = evaluate(target, run_pictures(noisy.run))
    with pytest.raises(RunError, match="the report can't be written to"):
        write_report(tmp_path / "file", found, target)
