"""What is gathered and made of the answers, with a target whose answers are known."""

import json

import numpy as np
import pytest

from tests.training.evaluate.known import Known, pictures
from training.errors import DataError
from training.evaluate import predictions
from training.evaluate.console import show
from training.evaluate.evaluation import MAX_MATRIX_CLASSES, evaluate
from training.evaluate.predictions import gather

CLASSES = ("ant", "bee", "cow")
SAID: list[list[float] | str] = [
    [5, 0, 0], [0, 5, 0], "broken", [0, 1, 4], [float("nan"), 0, 0], [3, 2, 0],
]  # fmt: skip


def test_failures_and_what_is_no_number_count_nowhere() -> None:
    done: list[int] = []
    found = evaluate(Known(CLASSES, SAID, 2.0), pictures(CLASSES, [0, 1, 1, 2, 0, 1]), done.append)
    assert sum(done) == 6
    assert found.predictions.indices.tolist() == [0, 1, 3, 5]
    assert found.targets.tolist() == [0, 1, 2, 1]
    assert found.numbers["top1_accuracy"] == 0.75
    # Of three classes the right one is always among five.
    assert "top5_accuracy" not in found.numbers
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["failures"] == [
        {"image": "#2", "reason": "broken"},
        {"image": "#4", "reason": "the network's output isn't a finite number"},
    ]
    assert document["data"] == {"source": "made up", "images": 6, "answered": 4, "failed": 2}
    assert document["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert document["confusions"] == [{"label": "bee", "predicted": "ant", "images": 1}]
    assert document["calibration"]["bins"] == 15
    assert sum(document["calibration"]["before"]["counts"]) == 4


def test_the_temperature_changes_the_loss_and_not_the_accuracy() -> None:
    truth = pictures(CLASSES, [0, 1, 1, 2, 0, 1])
    plain, cooled = (evaluate(Known(CLASSES, SAID, value), truth) for value in (1.0, 2.0))
    assert cooled.numbers["nll_before_temperature"] == plain.numbers["nll"]
    assert cooled.numbers["nll"] != plain.numbers["nll"]
    assert cooled.numbers["top1_accuracy"] == plain.numbers["top1_accuracy"]


def test_accuracy_at_5_is_there_from_six_classes_on(capsys: pytest.CaptureFixture[str]) -> None:
    for classes in (5, 6):
        labels = tuple(map(str, range(classes)))
        said: list[list[float] | str] = [list(map(float, range(classes)))] * classes
        found = evaluate(Known(labels, said), pictures(labels, list(range(classes))))
        show(found)
        assert ("accuracy@5" in capsys.readouterr().out) == (classes == 6)
        assert found.numbers.get("top5_accuracy") == (None if classes == 5 else 5 / 6)


def test_a_class_that_is_never_given_has_no_precision(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(Known(CLASSES, [[5, 0, 0], [5, 0, 0]]), pictures(CLASSES, [0, 1]))
    show(found)
    row, _confused = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bee")]
    assert row.split() == ["bee", "–", "0.00%", "0.00%", "1"]
    assert found.numbers["macro_precision"] == 0.25


def test_what_got_no_answer_is_counted_against_all(capsys: pytest.CaptureFixture[str]) -> None:
    show(evaluate(Known(CLASSES, SAID), pictures(CLASSES, [0, 1, 1, 2, 0, 1])))
    shown = capsys.readouterr().out
    assert "on made up: 4 of 6 images, 2 without an answer\n" in shown
    assert "without an answer; they count nowhere\n  #2: broken\n" in shown
    show(evaluate(Known(CLASSES, SAID[:1]), pictures(CLASSES, [0])))
    assert "on made up: 1 image\n" in capsys.readouterr().out


def test_means_over_classes_leave_out_those_without_images() -> None:
    found = evaluate(Known(CLASSES, [[5, 0, 0], [5, 0, 0]]), pictures(CLASSES, [0, 0]))
    assert found.numbers["macro_f1"] == 1.0


def test_nothing_answered_is_an_error_that_says_why() -> None:
    with pytest.raises(DataError, match="none of 2 images was answered; the first: broken"):
        evaluate(Known(CLASSES, ["broken", "too"]), pictures(CLASSES, [0, 1]))


def test_of_too_many_classes_there_is_no_matrix() -> None:
    labels = tuple(map(str, range(MAX_MATRIX_CLASSES + 1)))
    said: list[list[float] | str] = [np.eye(len(labels))[7].tolist(), np.eye(len(labels))[8].tolist()]
    found = evaluate(Known(labels, said), pictures(labels, [7, 7]))
    assert found.matrix is None
    assert found.document()["confusion_matrix"] is None
    assert [(one.label, one.predicted) for one in found.confusions] == [("7", "8")]


def test_what_is_too_large_for_memory_lies_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = pictures(CLASSES, [0, 1, 1, 2, 0, 1])
    monkeypatch.setattr(predictions, "MAX_BYTES_IN_MEMORY", 0)
    found = gather(Known(CLASSES, SAID), truth.split, lambda _images: None)
    assert isinstance(found.logits, np.memmap)
    assert found.logits.tolist() == [[5, 0, 0], [0, 5, 0], [0, 1, 4], [3, 2, 0]]
    assert evaluate(Known(CLASSES, SAID), truth).numbers["top1_accuracy"] == 0.75


def test_the_terminal_shows_the_worst_of_many_classes(capsys: pytest.CaptureFixture[str]) -> None:
    labels = tuple(f"class [{i}]" for i in range(30))
    said: list[list[float] | str] = [np.eye(30)[max(i, 1)].tolist() for i in range(30)]
    show(evaluate(Known(labels, said), pictures(labels, list(range(30)))))
    shown = capsys.readouterr().out
    assert "accuracy@1" in shown
    assert "the 20 classes with the lowest F1, of 30" in shown
    assert "class [0]  class [1]" in " ".join(shown.split("most confused")[1].split("\n")).replace("   ", " ")
    assert "class [29]" not in shown
