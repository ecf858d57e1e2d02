"""The smaller precisions of an exported network, each measured against its fp32 file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.agreement import GATES, Agreement, agreement
from training.calibration import held_apart
from training.errors import SettingError
from training.evaluation import EvaluationImages
from training.half import to_float16
from training.quantize import GPU, X86, quantize
from training.runtime import (
    Outputs,
    check_bfloat16,
    cpu_outputs,
    int8_outputs,
    only_as_written,
    openvino_outputs,
)

FP32_FILE = "model.onnx"
_BATCH_SIZE = 8


@dataclass(frozen=True)
class Kind:
    """A variant that can be asked for.

    Attributes:
        precision: as the manifest calls it.
        file: its name in the package.
        provider: the execution provider that it is made for.
    """

    precision: str
    file: str
    provider: str


KINDS = {
    "int8": Kind("int8", "model.int8.onnx", "cpu"),
    "int8-gpu": Kind("int8", "model.int8.gpu.onnx", "cuda"),
    # ONNX Runtime's CPU kernels convert to float32 and back: slower than fp32.
    "fp16": Kind("fp16", "model.fp16.onnx", "cuda"),
    # No file of its own: OpenVINO computes the fp32 one in bfloat16 when told to.
    "bf16": Kind("bf16", FP32_FILE, "openvino"),
}
PRECISIONS = ("fp32", *KINDS)


@dataclass(frozen=True)
class Variant:
    """One that was made and measured.

    Attributes:
        name: as it was asked for, one of `KINDS`.
        kind: what it is.
        agreement: with the fp32 file.
        failures: of its gate, in words; empty where it keeps it.
    """

    name: str
    kind: Kind
    agreement: Agreement
    failures: tuple[str, ...]

    def __str__(self) -> str:
        outcome = f"NOT published: {'; '.join(self.failures)}" if self.failures else self.kind.file
        return f"{self.name}: {self.agreement}: {outcome}"


def check_precisions(precisions: Sequence[str], calibration_images: NDArray[np.uint8] | None) -> list[str]:
    """What is to be made beside fp32, in the order of `KINDS`, after a look at whether it can be.

    Args:
        precisions: names of `PRECISIONS`; fp32 needn't be among them.
        calibration_images: None where there are none.

    Raises:
        SettingError: a name isn't known, or int8 has nothing to be calibrated on.
        ExportError: bf16 can't be measured on this machine; says what is missing.
    """
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown:
        raise SettingError(f"precision {unknown[0]!r} isn't known; expected {', '.join(PRECISIONS)}")
    asked = [name for name in KINDS if name in precisions]
    if calibration_images is None and (int8 := [name for name in asked if KINDS[name].precision == "int8"]):
        raise SettingError(
            f"precision {int8[0]} is calibrated on real images; name a folder of them with --calibration"
        )
    if "bf16" in asked:
        check_bfloat16()
    return asked


def make_variants(
    folder: Path,
    names: Sequence[str],
    calibration_images: NDArray[np.uint8] | None,
    evaluation: EvaluationImages,
    *,
    multi_label: bool = False,
) -> list[Variant]:
    """Write each variant beside `folder`/model.onnx, measure it, and remove it again if it fails its gate.

    int8 that fails with weights rounded to the nearest is made once more with weights rounded by what that
    does to the outputs (`rounding.py`) and its first layers left float32. int8 for x86 runs on OpenVINO too:
    where that is installed it is measured on both, and the worse of each number counts. What is for GPUs is
    measured on the CPU: int8 in float32 between its quantizations, since the CPU's own integers may saturate,
    and fp16 with sums in float32: a GPU's may differ a little more.

    Args:
        folder: of the package.
        names: as `check_precisions` gave them.
        calibration_images: uint8 [count, height, width, 3], for int8; those of `evaluation` are left out.
        evaluation: to measure on; shifted views are added, up to what the strictest gate needs.
        multi_label: whether the network's classes may hold together.

    Raises:
        ExportError: a variant can't be made, or there is nothing left to calibrate on.
        OSError: a file can't be written.
    """
    if not names:
        return []
    if calibration_images is not None:
        calibration_images = held_apart(calibration_images, evaluation.pixels)
    evaluation = evaluation.at_least(max(GATES[KINDS[name].precision].images for name in names))
    source = folder / FP32_FILE
    reference = cpu_outputs(source, evaluation.pixels, _BATCH_SIZE)
    variants = []
    for name in names:
        kind = KINDS[name]
        for careful in (False, True) if kind.precision == "int8" else (False,):
            if kind.file != FP32_FILE:
                _write(kind, source, folder / kind.file, calibration_images, careful=careful)
            measured = _measure(kind, folder / kind.file, evaluation, reference, multi_label=multi_label)
            failures = tuple(GATES[kind.precision].failures(measured))
            if not failures:
                break
        if failures and kind.file != FP32_FILE:
            (folder / kind.file).unlink()
        variants.append(Variant(name, kind, measured, failures))
    return variants


def _measure(
    kind: Kind, file: Path, evaluation: EvaluationImages, reference: Outputs, *, multi_label: bool
) -> Agreement:
    images = evaluation.pixels
    measure = partial(agreement, reference, labels=evaluation.labels, multi_label=multi_label)
    if kind.precision == "bf16":
        outputs = openvino_outputs(file, images, _BATCH_SIZE, "bf16")
    else:
        as_written = only_as_written(kind.precision, kind.provider)
        outputs = cpu_outputs(file, images, _BATCH_SIZE, as_written=as_written)
    measured = measure(outputs)
    if kind.precision == "int8" and kind.provider == "cpu":
        on_openvino = int8_outputs(file, images, _BATCH_SIZE)
        if on_openvino is not None:
            measured = measured.worse(measure(on_openvino))
    return measured


def _write(
    kind: Kind, source: Path, target: Path, calibration_images: NDArray[np.uint8] | None, *, careful: bool
) -> None:
    if kind.precision == "fp16":
        to_float16(source, target)
        return
    if calibration_images is None:
        raise SettingError(f"precision {kind.precision} needs images to be calibrated on")
    scheme = X86 if kind.provider == "cpu" else GPU
    quantize(source, target, calibration_images, scheme, careful=careful)
