"""A run of `fovea-train fit` → a model package."""

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from training.calibration import MAX_CALIBRATION_IMAGES
from training.errors import DataError, RunError
from training.evaluate.calibrate import calibrate, described
from training.evaluation import calibration_folder, evaluation_folder, evaluation_split
from training.export import Exported, export_package
from training.package import EMBEDDING_TASK, Provenance
from training.parity_images import folder_images, split_images
from training.photo_crops import calibration_crops, evaluation_crops
from training.report.card import model_card, report_on
from training.run_model import load_run_model
from training.run_splits import run_test_split, run_train_split
from training.run_temperature import read_document, weights_digest
from training.sources import source_name
from training.whitening_fit import whiten, whitening_images


def export_run(
    run: Path,
    *,
    checkpoint: str,
    repository: Path,
    name: str | None = None,
    version: int | None = None,
    licence: str = "",
    images: Path | None = None,
    precisions: Sequence[str] = ("fp32",),
    calibration: Path | None = None,
    crops: int | None = None,
    whiten_to: int | None = None,
    whiten_by: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Exported:
    """Publish a checkpoint of a run of `fovea-train fit`.

    Args:
        run: its folder.
        checkpoint: 'best' or 'last'.
        repository: made if missing.
        name: None calls it <data>-<architecture>.
        version: None takes the next free one.
        licence: of the weights.
        images: a folder to compare on instead of the run's test split.
        precisions: as `export_package`.
        calibration: a folder to calibrate int8 on instead of the run's training split.
        crops: of each of `images`, to measure precisions on; int8 is then calibrated on other crops, of
            `calibration` or else of `images`.
        whiten_to: dimensions to whiten embeddings to; None leaves them alone.
        whiten_by: a folder to fit that on instead of the run's training split.
        say: prints a line; told which run and epoch this is, and whether the run came to its end.

    Raises:
        TrainingError: one of `errors.py`.
    """
    loaded = load_run_model(run, checkpoint)
    config, saved, model = loaded.config, loaded.checkpoint, loaded.model
    report = report_on(run, weights_digest(saved.model))
    labels, has_classes = loaded.labels, loaded.task != EMBEDDING_TASK
    say(
        f"exporting {run}: the {checkpoint} checkpoint, epoch {saved.epoch} of "
        f"{config.optimization.epochs}, val {saved.selects_by.replace('_', ' ')} {saved.score:.2%}"
    )
    if not (run / "summary.json").exists():
        say(
            "this run was interrupted, or is still going on (it has no summary.json): its later epochs and "
            "its test score are missing"
        )
    metrics = {f"val_{name}": value for name, value in saved.metrics.items() if math.isfinite(value)}
    if checkpoint == "best":
        metrics |= _test_scores(run)
    data_name = source_name(config.data.source)
    spec = config.preprocessing
    evaluation = calibration_images = None
    if images is not None:
        pixels = folder_images(images, spec)
    else:
        pixels = split_images(run_test_split(run, config.data), spec)
    if any(precision != "fp32" for precision in precisions):
        if images is not None and crops is not None:
            evaluation = evaluation_crops(images, spec, labels, crops)
        elif images is not None:
            evaluation = evaluation_folder(images, spec, labels)
        else:
            evaluation = evaluation_split(run_test_split(run, config.data), spec, "the run's test split")
    if any(precision.startswith("int8") for precision in precisions):
        if crops is not None and (cropped := calibration or images) is not None:
            calibration_images = calibration_crops(cropped, spec, MAX_CALIBRATION_IMAGES)
        elif calibration is not None:
            calibration_images = calibration_folder(calibration, spec, MAX_CALIBRATION_IMAGES)
        else:
            calibration_images = split_images(run_train_split(run, config.data), spec, MAX_CALIBRATION_IMAGES)
    whitening = None
    if whiten_to is not None:
        split = run_train_split(run, config.data) if whiten_by is None else whitening_images(whiten_by)
        normalization = config.normalization
        whitening = whiten(
            model, split, whiten_to, preprocessing=spec, mean=normalization.mean, std=normalization.std
        )
        say(whitening.described())
    return export_package(
        model,
        repository=repository,
        name=name or _safe_name(f"{data_name}-{config.model.architecture}"),
        labels=labels,
        architecture=config.model.architecture,
        preprocessing=spec,
        mean=config.normalization.mean,
        std=config.normalization.std,
        images=pixels,
        precisions=precisions,
        calibration_images=calibration_images,
        evaluation_images=None if evaluation is None else evaluation.pixels,
        evaluation_labels=evaluation.labels if evaluation is not None and has_classes else None,
        evaluation_source="" if evaluation is None else evaluation.source,
        task=loaded.task,
        whitening=whitening,
        version=version,
        temperature=_temperature(run, checkpoint, say),
        card=lambda manifest: model_card(run, config, manifest, report),
        provenance=Provenance(
            training_data=f"{data_name}: {config.data.train_images} images; {config.data.splits}",
            recipe=config.run.command,
            licence=licence,
            metrics=metrics,
        ),
    )


def _temperature(run: Path, checkpoint: str, say: Callable[[str], None]) -> float:
    """That of the run; 1 where it has none and its val images are gone."""
    read_document(run)  # one that is broken is to be mended, not passed over
    try:
        found = calibrate(run, checkpoint, "cpu")
    except (RunError, DataError) as error:
        say(f"temperature 1, for it can't be fitted: {error}")
        return 1.0
    if found is None:
        return 1.0
    say(described(found))
    return found.value


def newest_run(runs: Path) -> Path:
    """The finished run that was started last, or, where none was finished, the last with a checkpoint.

    Raises:
        RunError: there is none.
    """
    found = [
        path.parent for path in runs.glob("*/config.toml") if (path.parent / "checkpoints/best.pt").exists()
    ]
    if not found:
        raise RunError(
            f"no run with a checkpoint in {runs}/; train one with fovea-train fit, or name one with --run"
        )
    finished = [run for run in found if (run / "summary.json").exists()]
    return max(finished or found, key=lambda run: ((run / "config.toml").stat().st_mtime_ns, run.name))


def _test_scores(run: Path) -> dict[str, float]:
    """The scores that `fit` left; none where the run was stopped before its end."""
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        return {name: float(value) for name, value in summary.items() if name.startswith("test_")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{run / 'summary.json'}: not the summary of a run: {error}") from error


def _safe_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("_.-")[:128]
