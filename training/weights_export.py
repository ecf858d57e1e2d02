"""Weights that were trained elsewhere → a model package."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.preprocess import Preprocessing
from training.calibration import MAX_CALIBRATION_IMAGES
from training.config import Channels
from training.errors import SettingError
from training.evaluation import calibration_folder, evaluation_folder
from training.export import Exported, export_package
from training.models import Classifier, architecture
from training.package import Provenance
from training.parity_images import folder_images
from training.photo_crops import calibration_crops, evaluation_crops
from training.pretrained import IMAGENET_CLASSES, imagenet_labels, load_pretrained
from training.report.weights_card import weights_card
from training.weights import load_weights, read_weights
from training.whitening_fit import whiten, whitening_images


def export_weights(
    weights: Path,
    *,
    arch: str,
    labels: Sequence[str],
    licence: str = "",
    training_data: str = "",
    **publishing: Any,
) -> Exported:
    """Publish weights that were trained elsewhere, from their state dict alone.

    Args:
        weights: the file, as `weights.read_weights` takes it.
        arch: a name of `training.models`.
        labels: in the order of the logits.
        licence: of the weights.
        training_data: for the record.
        publishing: as of `publish_network`.

    Raises:
        TrainingError: one of `errors.py`.
    """
    model = architecture(arch).build(len(labels))
    load_weights(model, read_weights(weights), str(weights))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    provenance = Provenance(
        training_data=training_data, recipe=f"weights {weights.name}, SHA-256 {digest}", licence=licence
    )
    return publish_network(model, arch=arch, labels=labels, provenance=provenance, **publishing)


def export_pretrained(
    arch: str,
    *,
    pretrained_version: str | None = None,
    labels: Sequence[str] | None = None,
    licence: str = "",
    training_data: str = "",
    say: Callable[[str], None] = lambda _line: None,
    **publishing: Any,
) -> Exported:
    """Publish the weights that others published for an architecture.

    Args:
        arch: a name of `training.models`.
        pretrained_version: of the weights; None takes the default.
        labels: in the order of the logits; None takes ImageNet's.
        licence: of the weights, where the record of them shall say something else.
        training_data: likewise.
        say: prints a line; told of a download.
        publishing: as of `publish_network`.

    Raises:
        SettingError: there are no such weights, or the labels are of another number than their classes.
        TrainingError: others of `errors.py`.
    """
    design = architecture(arch)
    classes = design.published_version(pretrained_version).classes
    if labels is None and classes != IMAGENET_CLASSES:
        raise SettingError(
            f"the weights of {arch} have {classes} classes, not ImageNet-1k's {IMAGENET_CLASSES:,}; so "
            "--pretrained needs --labels too"
        )
    labels = imagenet_labels() if labels is None else labels
    if len(labels) != classes:
        raise SettingError(f"there are {len(labels)} labels for {classes} classes; expected one each")
    model = design.build(classes)
    loaded = load_pretrained(model, arch, pretrained_version, say)
    provenance = Provenance(
        training_data=training_data or "ImageNet-1k",
        recipe=loaded.described,
        licence=licence or loaded.published.licence,
    )
    return publish_network(model, arch=arch, labels=labels, provenance=provenance, **publishing)


def publish_network(
    model: Classifier,
    *,
    arch: str,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    mean: Channels,
    std: Channels,
    repository: Path,
    provenance: Provenance,
    name: str | None = None,
    version: int | None = None,
    images: Path | None = None,
    precisions: Sequence[str] = ("fp32",),
    calibration: Path | None = None,
    crops: int | None = None,
    whiten_to: int | None = None,
    whiten_by: Path | None = None,
) -> Exported:
    """Publish a network that no run of ours trained.

    Args:
        model: with its weights.
        arch: a name of `training.models`.
        labels: in the order of the logits.
        preprocessing, mean, std: what the weights were trained with.
        repository: made if missing.
        provenance: for the record.
        name: None calls it like the architecture.
        version: None takes the next free one.
        images: a folder to compare on instead of scikit-learn's photographs.
        precisions: as `export_package`.
        calibration: a folder to calibrate int8 on.
        crops: of each of `images`, to measure precisions on; int8 is then calibrated on other crops, of
            `calibration` or else of `images`.
        whiten_to: dimensions to whiten embeddings to; None leaves them alone.
        whiten_by: a folder of images like those that were trained on, to fit the whitening on.

    Raises:
        TrainingError: one of `errors.py`.
    """
    whitening = None
    if whiten_to is not None:
        if whiten_by is None:
            raise SettingError(
                "--whiten is fitted on real images, like those that were trained on and other than those "
                "that will be searched; name a folder of them with --whiten-images"
            )
        whitening = whiten(
            model, whitening_images(whiten_by), whiten_to, preprocessing=preprocessing, mean=mean, std=std
        )
    evaluation = calibration_images = None
    if images is not None and any(precision != "fp32" for precision in precisions):
        if crops is None:
            evaluation = evaluation_folder(images, preprocessing, labels)
        else:
            evaluation = evaluation_crops(images, preprocessing, labels, crops)
    if any(precision.startswith("int8") for precision in precisions):
        if crops is not None and (cropped := calibration or images) is not None:
            calibration_images = calibration_crops(cropped, preprocessing, MAX_CALIBRATION_IMAGES)
        elif calibration is not None:
            calibration_images = calibration_folder(calibration, preprocessing, MAX_CALIBRATION_IMAGES)
    return export_package(
        model,
        repository=repository,
        name=name or package_name(arch),
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
        evaluation_source="" if evaluation is None else evaluation.source,
        version=version,
        provenance=provenance,
        whitening=whitening,
        card=lambda manifest: weights_card(manifest, preprocessing),
    )


def package_name(arch: str) -> str:
    """An architecture's name as a model's: without the colon of an adapter's."""
    return arch.replace(":", "-")


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
