"""Weights that were trained elsewhere → a model package."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from service.preprocess import Preprocessing
from training.calibration import MAX_CALIBRATION_IMAGES
from training.config import Channels
from training.errors import SettingError
from training.evaluation import calibration_folder, evaluation_folder
from training.export import Exported, export_package
from training.models import architecture
from training.package import Provenance
from training.parity_images import folder_images
from training.weights import load_weights, read_weights


def export_weights(
    weights: Path,
    *,
    arch: str,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    mean: Channels,
    std: Channels,
    repository: Path,
    name: str | None = None,
    version: int | None = None,
    licence: str = "",
    training_data: str = "",
    images: Path | None = None,
    precisions: Sequence[str] = ("fp32",),
    calibration: Path | None = None,
) -> Exported:
    """Publish weights that were trained elsewhere, from their state dict alone.

    Args:
        weights: the file, as `weights.read_weights` takes it.
        arch: a name of `training.models`.
        labels: in the order of the logits.
        preprocessing, mean, std: what the weights were trained with.
        repository: made if missing.
        name: None calls it like the architecture.
        version: None takes the next free one.
        licence: of the weights.
        training_data: for the record.
        images: a folder to compare on instead of scikit-learn's photographs.
        precisions: as `export_package`.
        calibration: a folder to calibrate int8 on.

    Raises:
        TrainingError: one of `errors.py`.
    """
    model = architecture(arch).build(len(labels))
    load_weights(model, read_weights(weights), str(weights))
    evaluation = calibration_images = None
    if images is not None and any(precision != "fp32" for precision in precisions):
        evaluation = evaluation_folder(images, preprocessing, labels)
    if calibration is not None and any(precision.startswith("int8") for precision in precisions):
        calibration_images = calibration_folder(calibration, preprocessing, MAX_CALIBRATION_IMAGES)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return export_package(
        model,
        repository=repository,
        name=name or arch,
        labels=labels,
        architecture=arch,
        preprocessing=preprocessing,
        mean=mean,
        std=std,
        images=None if images is None else folder_images(images, preprocessing),
        precisions=precisions,
        calibration_images=calibration_images,
        evaluation_images=None if evaluation is None else evaluation.pixels,
        evaluation_labels=None if evaluation is None else evaluation.labels,
        version=version,
        provenance=Provenance(
            training_data=training_data, recipe=f"weights {weights.name}, SHA-256 {digest}", licence=licence
        ),
    )


def read_labels(path: Path) -> list[str]:
    """One label a line, in the order of the logits, UTF-8; lines end in \\n or \\r\\n.

    Raises:
        SettingError: the file can't be read, is empty, or has an empty line.
    """
    try:
        # Not splitlines, which splits at characters that a label may hold, such as a form feed.
        text = path.read_bytes().decode("utf-8-sig").rstrip("\r\n\t ")
        labels = [line.strip("\r\t ") for line in text.split("\n")] if text else []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: can't be read as UTF-8 text: {error}") from error
    if not labels:
        raise SettingError(f"{path}: has no labels; expected one a line")
    if "" in labels:
        raise SettingError(f"{path}: line {labels.index('') + 1} is empty; expected one label a line")
    return labels
