"""The report's files: a page for people, the numbers and each picture's answer for programs."""

import csv
import json
from pathlib import Path

import numpy as np

from training.errors import RunError
from training.evaluate.evaluation import Evaluation
from training.evaluate.target import Target
from training.probabilities import blocks, log_softmax, sigmoid
from training.report.neighbours import Neighbours, nearest
from training.report.page import page

PAGE, NUMBERS, ANSWERS = "report.html", "metrics.json", "predictions.csv"


def write_report(folder: Path, found: Evaluation, target: Target) -> Path:
    """Leave report.html, metrics.json and predictions.csv in `folder`.

    Args:
        folder: made if missing; older files of these names are replaced.
        found: what to tell.
        target: who was asked.

    Returns:
        The page.

    Raises:
        RunError: the folder can't be written to.
    """
    near = nearest(found.predictions.embeddings)
    text = page(found, target, near)
    numbers = json.dumps(found.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NUMBERS).write_text(numbers, encoding="utf-8")
        _write_answers(folder / ANSWERS, found, near)
        (folder / PAGE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"the report can't be written to {folder}: {error.strerror}") from error
    return folder / PAGE


def _write_answers(path: Path, found: Evaluation, near: Neighbours) -> None:
    """A line a picture: its class, what was said of it how surely, and the pictures next to it."""
    single = found.targets.ndim == 1
    names = [found.pictures.name(int(index)) for index in found.predictions.indices]
    said, sure = _said(found)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = near.rows.shape[1]
        writer.writerow(
            ["image", "label", "predicted", "probability"] + [f"neighbour_{i + 1}" for i in range(columns)]
        )
        for row, name in enumerate(names):
            truth = (
                [found.labels[found.targets[row]]]
                if single
                else [found.labels[index] for index in np.flatnonzero(found.targets[row])]
            )
            writer.writerow(
                [name, ";".join(truth), said[row], sure[row], *(names[other] for other in near.rows[row])]
            )


def _said(found: Evaluation) -> tuple[list[str], list[str]]:
    """What was said of each picture, and how surely; empty for a target without classes.

    Of several labels an image all that reach the threshold, and the highest probability of any.
    """
    logits = found.predictions.logits
    if logits is None:
        return [""] * len(found.targets), [""] * len(found.targets)
    said: list[str] = []
    sure: list[float] = []
    for rows in blocks(logits):
        if found.targets.ndim == 2:
            probabilities = sigmoid(logits[rows], found.temperature)
            reached = probabilities >= found.numbers["threshold"]
            said += [";".join(found.labels[index] for index in np.flatnonzero(row)) for row in reached]
        else:
            probabilities = np.exp(log_softmax(logits[rows], found.temperature))
            said += [found.labels[index] for index in logits[rows].argmax(axis=1)]
        sure += probabilities.max(axis=1).tolist()
    return said, [f"{value:.6f}" for value in sure]
