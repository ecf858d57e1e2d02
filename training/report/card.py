"""The model card: what a stranger should know before using the model.

Its sections are those of Mitchell et al. 2019, Model Cards for Model Reporting (arXiv:1810.03993), under the
metadata that the Hugging Face Hub reads. What a program can't know is marked as missing, as there.
"""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config import RunConfig
from training.errors import RunError
from training.evaluate.console import TITLES, formatted, precision
from training.report.card_parts import (
    MISSING,
    caveat,
    details,
    front_matter,
    metrics_are,
    misuse,
    summary,
    temperature,
    use,
)
from training.run_model import task_of
from training.run_temperature import read_document
from training.scores import MIN_CLASSES_OF_TOP5

CARD_FILE = "MODEL_CARD.md"
REPORT_FOLDER = "report"
MAX_WORST = 10
# What summary.json calls them → as evaluations do.
_AS_EVALUATIONS = {"accuracy": "top1_accuracy"}
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")


def model_card(
    run: Path,
    config: RunConfig,
    manifest: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
) -> str:
    """Markdown.

    Args:
        run: its folder: summary.json and temperature.json are read, where there are any.
        config: the run's.
        manifest: of the package that the card goes with; None for the run itself.
        report: an evaluation on the run's test images, as `Evaluation.document` gives it.

    Raises:
        RunError: one of the files can't be read.
    """
    return rendered(_context(run, config, manifest or {}, report or {}))


def rendered(context: Mapping[str, Any]) -> str:
    """What the template makes of it; every value that isn't a sentence of ours is escaped there."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("training", "report"), autoescape=False, undefined=StrictUndefined,  # noqa: S701 - Markdown; `md` escapes
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["md"] = escaped
    environment.filters["share"] = lambda value: f"{value:.2%}"
    environment.globals["precision"] = precision
    return environment.get_template("card.md").render(**context).rstrip() + "\n"


def escaped(text: object) -> str:
    """A stranger's text as plain text in Markdown, on one line, also inside a table."""
    if text == MISSING:
        return MISSING
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def _context(
    run: Path, config: RunConfig, manifest: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    data, labels = config.data, config.data.labels
    name = str(manifest.get("name") or run.resolve().name)
    values = _values(run, report)
    if len(labels) < MIN_CLASSES_OF_TOP5:
        values.pop("top5_accuracy", None)
    task = task_of(config)
    fitted = read_document(run)
    source = Path(data.source).name or data.source
    return {
        "front_matter": front_matter(
            name=name,
            task=task,
            tags=(config.model.architecture, "onnx" if manifest else "pytorch"),
            licence=str(manifest.get("provenance", {}).get("licence", "")),
            data=source,
            values=values,
        ),
        "name": name,
        "summary": summary(task, len(labels), f"{config.model.architecture}, trained on {source}"),
        "details": details(config, manifest),
        "use": use(task, labels),
        "misuse": misuse(task),
        "worst": sorted(
            (one for one in report.get("per_class", []) if one["support"]), key=lambda one: one["f1"]
        )[:MAX_WORST],
        "metrics_are": metrics_are(task),
        "caveat": caveat(task),
        "evaluation_data": f"{data.test_images:,} test images, by which nothing was chosen; {data.splits}.",
        "training_data": f"{source}: {data.train_images:,} images to learn from and {data.val_images:,} to "
        f"choose the checkpoint and the temperature by; {data.splits}.",
        "numbers": [
            (title, formatted(key, value))
            for key, title in TITLES.items()
            if (value := values.get(key)) is not None
        ],
        "no_numbers": "The run has not come to its end; it has no scores on test images.",
        "temperature": temperature(manifest, fitted),
        "variants": manifest.get("variants", []),
        "recipe": config.run.command.replace("```", "'''"),
    }


def _values(run: Path, report: Mapping[str, Any]) -> dict[str, float | None]:
    """Scores on test images: those of the report, else what `fit` left."""
    if report:
        return dict(report["metrics"])
    summary = _document(run / "summary.json") or {}
    scores = {
        name.removeprefix("test_"): value for name, value in summary.items() if name.startswith("test_")
    }
    return {_AS_EVALUATIONS.get(name, name): value for name, value in scores.items()}


def report_on(run: Path, weights_sha256: str) -> Mapping[str, Any] | None:
    """What `fovea-train report` left in a run's folder, where it is about these weights.

    Raises:
        RunError: it can't be read.
    """
    report = _document(run / REPORT_FOLDER / "metrics.json") or {}
    # Ten crops aren't what is served.
    if report.get("ten_crop") or report.get("target", {}).get("weights") != weights_sha256:
        return None
    return report


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: can't be read: {error}") from error
    return found
