"""The ResNet-50 package and the photographs that several benchmarks share, and their common options."""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.large_photos import photo_files
from benchmarks.pinned import PinnedProcess, pinned_server
from service.providers import missing

WORK = Path(__file__).resolve().parent / "work"
PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
_RANDOM = WORK / "random_resnet50"
_PRECISIONS = ("fp32", "int8")
# Makes the package of random weights, in a process of its own, so that torch's threads and memory are gone
# when the clock runs. Its int8 file has no agreement: that of random weights would say nothing.
_MAKE_RANDOM = """
import json, sys, hashlib, torch
from pathlib import Path
from service.preprocess import Preprocessing
from training.export import export_package
from training.models import architecture
from training.parity_images import folder_images
from training.quantize import X86, quantize
torch.manual_seed(0)
spec = Preprocessing(256, 224, 224, "bilinear")
folder = export_package(
    architecture("resnet50").build(1000), repository=Path(sys.argv[1]), name="resnet50",
    labels=[str(i) for i in range(1000)], architecture="resnet50", preprocessing=spec,
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
).folder
quantize(folder / "model.onnx", folder / "model.int8.onnx", folder_images(Path(sys.argv[2]), spec)[:32], X86)
manifest = json.loads((folder / "manifest.json").read_text())
digest = hashlib.sha256((folder / "model.int8.onnx").read_bytes()).hexdigest()
manifest["variants"].append(
    {"file": "model.int8.onnx", "sha256": digest, "precision": "int8", "provider": "cpu"}
)
(folder / "manifest.json").write_text(json.dumps(manifest))
"""


@dataclass(frozen=True)
class Package:
    """A model package on disk.

    Attributes:
        folder: <repository>/<model>/<version>.
        trained: whether its weights are, so that its agreement says something.
    """

    folder: Path
    trained: bool

    @property
    def repository(self) -> Path:
        """The folder that a server takes."""
        return self.folder.parents[1]

    @property
    def model(self) -> str:
        """Its name and version, as `--model` of `fovea serve` takes them."""
        return f"{self.folder.parent.name}:{self.folder.name}"

    def describe(self) -> str:
        """Each variant's agreement with fp32, on one line."""
        variants = [_agreement(variant) for variant in _manifest(self.folder)["variants"]]
        weights = "trained weights" if self.trained else "RANDOM weights: agreement not measured"
        return f"{self.folder.parent.name} version {self.folder.name}, {weights}; {'; '.join(variants)}"


def options(description: str | None, *, engine: bool = False) -> argparse.ArgumentParser:
    """The options that all benchmarks of ResNet-50 have; with `engine`, what runs it is one too."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--photos", type=Path, default=PHOTOS, help="folder of JPEG files (default: %(default)s)"
    )
    parser.add_argument(
        "--package",
        type=Path,
        help="<repository>/<model>/<version> with fp32 and int8 (default: the newest ResNet-50 under "
        "benchmarks/work/, else random weights)",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: too short for a figure")
    if engine:
        parser.add_argument(
            "--execution-provider", default="openvino", help="the figure is OpenVINO's (default: %(default)s)"
        )
        parser.add_argument("--precision", default="int8")
    return parser


def served(
    package: Package, execution_provider: str, precision: str, *options: str, core: int | str, **more: float
) -> AbstractContextManager[PinnedProcess]:
    """A server of the package alone; `options` and `more` as `pinned_server` takes them."""
    return pinned_server(
        package.repository, "--model", package.model, "--execution-provider", execution_provider,
        "--precision", precision, *options, core=core, **more,
    )  # fmt: skip


def find(chosen: argparse.Namespace) -> tuple[Package, list[Path]]:
    """The package and the photographs that the options name.

    Raises:
        SystemExit: one of them isn't there.
    """
    provider = getattr(chosen, "execution_provider", "cpu")
    if lacking := missing(provider):
        raise SystemExit(f"not measured: {lacking}; --execution-provider cpu measures ONNX Runtime's own")
    photos = photo_files(chosen.photos)
    if chosen.package is not None:
        if not (chosen.package / "manifest.json").is_file():
            raise SystemExit(f"not measured: no manifest.json in {chosen.package}")
        return Package(chosen.package.resolve(), trained=True), photos
    trained = _trained()
    return (Package(trained, trained=True) if trained else _random(chosen.photos)), photos


def _trained() -> Path | None:
    found = [
        manifest.parent
        for manifest in WORK.rglob("manifest.json")
        if not manifest.is_relative_to(_RANDOM) and _has_all(manifest.parent)
    ]
    return max(found, key=lambda folder: (folder / "manifest.json").stat().st_mtime, default=None)


def _has_all(folder: Path) -> bool:
    try:
        manifest = _manifest(folder)
        precisions = {variant["precision"] for variant in manifest["variants"]}
        return manifest["architecture"] == "resnet50" and precisions.issuperset(_PRECISIONS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _random(photos: Path) -> Package:
    package = Package(_RANDOM / "models" / "resnet50" / "1", trained=False)
    if not _has_all(package.folder):
        shutil.rmtree(_RANDOM, ignore_errors=True)
        command: Sequence[str] = [sys.executable, "-c", _MAKE_RANDOM, str(package.repository), str(photos)]
        subprocess.run(command, check=True)
    return package


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return manifest


def _agreement(variant: dict[str, Any]) -> str:
    name = f"{variant['precision']} ({variant['file']} for {variant['provider']})"
    measured = variant.get("agreement")
    if not measured:
        return f"{name}: agreement not measured"
    text = (
        f"{name}: top-1 agreement {measured['top1_agreement']:.4f}, "
        f"embedding cosine {measured['embedding_cosine']:.4f} over {measured['images']} images"
    )
    if measured.get("top1_accuracy") is not None:
        text += f", top-1 accuracy {measured['top1_accuracy']:.4f}"
    return text
