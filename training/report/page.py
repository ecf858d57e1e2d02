"""An evaluation → one HTML document that needs nothing else: no script, no other file, no network."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.evaluate.console import answered, precision, shown_numbers
from training.evaluate.evaluation import Evaluation
from training.evaluate.run import RunTarget
from training.evaluate.target import Target
from training.report.confusion import confusion_grid
from training.report.facts import run_facts
from training.report.figures import curves, reliability_diagram
from training.report.gallery import Gallery
from training.report.history import read_history
from training.report.neighbours import Neighbours
from training.report.pictures import svg_uri

_TEMPLATE = "report.html"
MAX_CONFUSIONS = 25
MAX_FAILURES = 100
# More rows are folded away.
MAX_OPEN_CLASSES = 30
# Hexadecimal, of files and commits; shown on one line, the whole of it in its title.
_DIGEST = re.compile(r"[0-9a-f]{32,}(-dirty)?")


def page(found: Evaluation, target: Target, near: Neighbours) -> str:
    """The document.

    Args:
        found: what to tell.
        target: who was asked; of a run the page tells how it was trained, too.
        near: the nearest others of each picture that was answered.
    """
    # Needed here only.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        # Names of classes and files are a stranger's text.
        loader=PackageLoader("training", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["share"] = lambda value: f"{value:.2%}"
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.tests["digest"] = lambda value: _DIGEST.fullmatch(str(value)) is not None
    environment.globals["precision"] = precision
    return environment.get_template(_TEMPLATE).render(**_context(found, target, near))


def _context(found: Evaluation, target: Target, near: Neighbours) -> dict[str, Any]:
    gallery = Gallery(found, target)
    numbers = shown_numbers(found)
    failures = found.predictions.failures
    context: dict[str, Any] = {
        "title": f"{found.target['kind']} {found.target['name']}",
        "answered": answered(found),
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "found": found,
        "headline": _headline(numbers),
        "numbers": numbers,
        "facts": {name: value for name, value in found.target.items() if name not in ("kind", "name")},
        "failures": [(found.pictures.name(one.index), one.reason) for one in failures[:MAX_FAILURES]],
        "failed": len(failures),
        "grid": confusion_grid(found),
        "confusions": found.confusions[:MAX_CONFUSIONS],
        "classes": sorted((one for one in found.classes if one.support), key=lambda one: one.f1),
        "max_open_classes": MAX_OPEN_CLASSES,
        "reliability": None,
        "has_overlays": gallery.has_overlays,
        "mistakes": gallery.mistakes(),
        "pairs": gallery.pairs(),
        "neighbourhoods": gallery.neighbourhoods(near),
        "near": near,
        "curves": None,
        "ties": (),
        "run": None,
    }
    if found.before is not None and found.after is not None:
        diagram = reliability_diagram(found.before, found.after, found.temperature)
        context["reliability"] = svg_uri(diagram)
    if isinstance(target, RunTarget):
        context |= _of_run(target)
    return context


def _of_run(target: RunTarget) -> dict[str, Any]:
    run: Path = target.run_folder
    history = read_history(run)
    best = target.loaded.checkpoint.epoch
    return {
        "curves": svg_uri(curves(history, best)) if history else None,
        "ties": history.as_good_as(best) if history else (),
        "run": run_facts(target.loaded.config),
    }


def _headline(numbers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The few that are looked at first."""
    wanted = (
        "accuracy@1", "accuracy@5", "mean average precision", "F1, mean over classes",
        "expected calibration error", "retrieval Recall@1",
    )  # fmt: skip
    return [(title, text) for title, text in numbers if title in wanted]
