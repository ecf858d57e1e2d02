"""A trained network → a model package in a repository, published only if ONNX Runtime agrees with PyTorch."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.preprocess import Preprocessing
from training import package, publish
from training.agreement import Agreement
from training.config import Channels
from training.errors import ExportError, VersionTaken
from training.evaluation import EvaluationImages
from training.graph import Served, write_graph
from training.models import Classifier
from training.normalization import Normalization
from training.package import Provenance
from training.parity import check, compare
from training.parity_images import sample_photos
from training.variants import FP32_FILE, Variant, check_precisions, make_variants
from training.whitening import Whitening

CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class Exported:
    """A published package.

    Attributes:
        folder: <repository>/<name>/<version>.
        agreement: of its fp32 file with PyTorch.
        variants: what else was asked for, those that failed their gate and aren't in the package included.
        measured_on: the images that these were measured on, in words; empty where there are none.
    """

    folder: Path
    agreement: Agreement
    variants: tuple[Variant, ...] = ()
    measured_on: str = ""


def export_package(
    model: Classifier,
    *,
    repository: Path,
    name: str,
    labels: Sequence[str],
    architecture: str,
    preprocessing: Preprocessing,
    mean: Channels,
    std: Channels,
    images: NDArray[np.uint8] | None = None,
    version: int | None = None,
    provenance: Provenance | None = None,
    precisions: Sequence[str] = ("fp32",),
    calibration_images: NDArray[np.uint8] | None = None,
    evaluation_images: NDArray[np.uint8] | None = None,
    evaluation_labels: NDArray[np.int64] | None = None,
    evaluation_source: str = "",
    temperature: float = 1.0,
    card: Callable[[dict[str, Any]], str] | None = None,
    task: str = "single_label",
    whitening: Whitening | None = None,
) -> Exported:
    """Publish a network as <repository>/<name>/<version>.

    Args:
        model: left as it is.
        repository: made if missing.
        name: of the model.
        labels: in the order of the logits; none for the task "embedding".
        architecture: for the record.
        preprocessing: what the service does to an image before the graph.
        mean, std: what the graph does first, per RGB channel of pixels scaled to 0..1.
        images: real ones to compare on, uint8 [count, crop_height, crop_width, 3]; None takes crops
            of scikit-learn's two photographs.
        version: None takes the next free one.
        provenance: for the record.
        precisions: names of `variants.PRECISIONS`; fp32 is always made. One that disagrees with fp32 by
            more than its gate allows is left out of the package, and says so in `Exported.variants`.
        calibration_images: real ones for int8, of the same shape as `images`; those that are measured on
            are left out.
        evaluation_images: real ones to measure the precisions on, likewise; None takes `images`.
        evaluation_labels: int64 [count] of `evaluation_images`, indices of `labels`; None where unknown.
        evaluation_source: how many images these are of what, in words.
        temperature: what the service divides logits by, as `temperature.fit_temperature` finds it.
        card: the manifest → the model card, which the package then holds as MODEL_CARD.md.
        task: "single_label", "multi_label", or "embedding" for a package without classes.
        whitening: of the embeddings, as `whitening.fit_whitening` finds it; it becomes part of the graph.

    Raises:
        ParityError: ONNX Runtime and PyTorch disagree; has the numbers.
        SettingError: a precision isn't known, or int8 has no images to be calibrated on.
        VersionTaken: the version asked for is there already.
        ExportError: something can't be written or exported.
    """
    publish.check_name(name)
    if task not in package.TASKS:
        raise ExportError(f"the task is {task!r}; expected one of {', '.join(package.TASKS)}")
    classes, multi_label = task != package.EMBEDDING_TASK, task == package.MULTI_LABEL_TASK
    if not classes and (labels or temperature != 1.0):
        raise ExportError(
            f"there are {len(labels)} labels and temperature {temperature:g} for the task 'embedding'; "
            "expected no label and temperature 1, for there are no logits"
        )
    if whitening is not None and len(whitening.mean) != model.embedding_dimension:
        raise ExportError(
            f"the whitening is of {len(whitening.mean)} dimensions; expected {model.embedding_dimension}, "
            "those of the network's embedding"
        )
    if classes and len(labels) != model.classes:
        raise ExportError(f"there are {len(labels)} labels for {model.classes} logits; expected one each")
    names = check_precisions(precisions, calibration_images)
    if images is None:
        images = sample_photos(preprocessing)
        if evaluation_images is None:
            evaluation_source = f"{len(images)} crops of scikit-learn's two photographs"
    _check_images("to compare on", images, preprocessing)
    if calibration_images is not None:
        _check_images("to calibrate on", calibration_images, preprocessing)
    pixels = images if evaluation_images is None else evaluation_images
    evaluation = _evaluation(pixels, evaluation_labels, evaluation_source, preprocessing)
    height, width = preprocessing.crop_height, preprocessing.crop_width
    model = copy.deepcopy(model).cpu().eval()
    normalization = Normalization(mean, std)
    if whitening is not None:
        whitening = copy.deepcopy(whitening).cpu()
    served = Served(model, normalization, whitening, classes).eval()

    def published(version: int) -> Exported:
        manifest = package.facts(
            model,
            name=name,
            version=version,
            architecture=architecture,
            preprocessing=preprocessing,
            mean=mean,
            std=std,
            labels=labels,
            provenance=provenance or Provenance(),
            temperature=temperature,
            task=task,
            whitening=whitening,
        )
        with publish.staged(repository, name, version) as folder:
            file = folder / FP32_FILE
            write_graph(served, height, width, manifest, file)
            agreement = compare(
                model,
                normalization,
                file,
                images,
                whitening=whitening,
                classes=classes,
                multi_label=multi_label,
            )
            check(agreement)
            variants = make_variants(folder, names, calibration_images, evaluation, multi_label=multi_label)
            manifest["variants"] = [
                package.variant(file, "fp32", "any", agreement),
                *(
                    package.variant(
                        folder / made.kind.file, made.kind.precision, made.kind.provider, made.agreement
                    )
                    for made in variants
                    if not made.failures
                ),
            ]
            package.write_manifest(folder, manifest)
            if card is not None:
                (folder / CARD_FILE).write_text(card(manifest), encoding="utf-8")
        measured_on = evaluation.described(variants[0].agreement.images) if variants else ""
        return Exported(repository / name / str(version), agreement, tuple(variants), measured_on)

    if version is not None:
        return published(version)
    while True:
        # Where another export publishes the same version meanwhile, this one is the next.
        with suppress(VersionTaken):
            return published(publish.next_version(repository, name))


def _check_images(purpose: str, images: NDArray[np.uint8], preprocessing: Preprocessing) -> None:
    height, width = preprocessing.crop_height, preprocessing.crop_width
    if images.dtype != np.uint8 or len(images) < 1 or images.shape[1:] != (height, width, 3):
        raise ExportError(
            f"the images {purpose} are {images.dtype} of shape {images.shape}; expected uint8 of "
            f"(1 or more, {height}, {width}, 3)"
        )


def _evaluation(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64] | None, source: str, preprocessing: Preprocessing
) -> EvaluationImages:
    _check_images("to evaluate on", pixels, preprocessing)
    if labels is not None and labels.shape != (len(pixels),):
        raise ExportError(
            f"the labels of the images to evaluate on have shape {labels.shape}; expected ({len(pixels)},)"
        )
    return EvaluationImages(pixels, labels, source)
