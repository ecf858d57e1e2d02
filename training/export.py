"""A trained network → a model package in a repository, published only if ONNX Runtime agrees with PyTorch."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.preprocess import Preprocessing
from training import package, publish
from training.config import Channels
from training.errors import ExportError, VersionTaken
from training.graph import Served, write_graph
from training.models import Classifier
from training.normalization import Normalization
from training.package import Provenance
from training.parity import Agreement, compare
from training.parity_images import sample_photos


@dataclass(frozen=True)
class Exported:
    """A published package.

    Attributes:
        folder: <repository>/<name>/<version>.
        agreement: of its fp32 file with PyTorch.
    """

    folder: Path
    agreement: Agreement


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
) -> Exported:
    """Publish a network as <repository>/<name>/<version>.

    Args:
        model: left as it is.
        repository: made if missing.
        name: of the model.
        labels: in the order of the logits.
        architecture: for the record.
        preprocessing: what the service does to an image before the graph.
        mean, std: what the graph does first, per RGB channel of pixels scaled to 0..1.
        images: real ones to compare on, uint8 [count, crop_height, crop_width, 3]; None takes crops
            of scikit-learn's two photographs.
        version: None takes the next free one.
        provenance: for the record.

    Raises:
        ParityError: ONNX Runtime and PyTorch disagree; has the numbers.
        VersionTaken: the version asked for is there already.
        ExportError: something can't be written or exported.
    """
    publish.check_name(name)
    if len(labels) != model.fc.out_features:
        raise ExportError(
            f"there are {len(labels)} labels for {model.fc.out_features} logits; expected one each"
        )
    if images is None:
        images = sample_photos(preprocessing)
    height, width = preprocessing.crop_height, preprocessing.crop_width
    if len(images) < 1 or images.shape[1:] != (height, width, 3):
        raise ExportError(
            f"the images to compare on have shape {images.shape}; expected (1 or more, {height}, {width}, 3)"
        )
    model = copy.deepcopy(model).cpu().eval()
    normalization = Normalization(mean, std)

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
        )
        with publish.staged(repository, name, version) as folder:
            file = folder / "model.onnx"
            write_graph(Served(model, normalization).eval(), height, width, manifest, file)
            agreement = compare(model, normalization, file, images)
            agreement.check()
            manifest["variants"] = [package.variant(file, "fp32", "any", agreement)]
            package.write_manifest(folder, manifest)
        return Exported(repository / name / str(version), agreement)

    if version is not None:
        return published(version)
    while True:
        # Where another export publishes the same version meanwhile, this one is the next.
        with suppress(VersionTaken):
            return published(publish.next_version(repository, name))
