"""A float32 graph → one of eight-bit integers, calibrated on real pictures (static quantization).

QDQ format (Jacob et al. 2017, arXiv:1712.05877, section 3), weights per channel: the float operators stay in
the file between QuantizeLinear and DequantizeLinear, and each engine fuses them into its own int8 kernels.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from training.calibration import CalibrationBatches
from training.errors import ExportError
from training.graph import copy_metadata
from training.graph_parts import around_max_pooling, first_layers, float_nodes, pooling_and_head
from training.rounding import round_weights
from training.runtime import onnxruntime_module


class Scheme(NamedTuple):
    """Which integers stand for the values between layers; weights are signed in both.

    Attributes:
        signed: S8 around zero, as GPUs multiply them; U8 with a zero point is what x86 multiplies fast
            (S8 runs at float32's speed there).
        float_bias: biases stay float32: TensorRT takes no int32 ones.
        first_layers: how many convolutions, of networks with more, stay float32 when one is quantized with
            care. Numbers around zero have only half of their levels for what is never negative.
    """

    signed: bool
    float_bias: bool
    first_layers: int


X86 = Scheme(signed=False, float_bias=False, first_layers=2)
GPU = Scheme(signed=True, float_bias=True, first_layers=6)


def quantize(
    source: Path,
    target: Path,
    calibration_images: NDArray[np.uint8],
    scheme: Scheme,
    *,
    careful: bool = False,
) -> None:
    """Write the int8 twin of an exported graph.

    Args:
        source: the float32 file.
        target: the file to write; takes the source's metadata too.
        calibration_images: uint8 [count, height, width, 3], as the service would hand them to the graph.
        scheme: `X86` or `GPU`.
        careful: round weights by `rounding.round_weights`, which takes longer and agrees better, and leave
            the scheme's first layers float32; else round each weight to the nearest.

    Raises:
        ExportError: there are no images, ONNX Runtime isn't installed or can't quantize the graph.
        OSError: the file can't be written.
    """
    onnxruntime_module()
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    batches = CalibrationBatches(calibration_images)
    activations = QuantType.QInt8 if scheme.signed else QuantType.QUInt8
    options: dict[str, Any] = {
        "ActivationSymmetric": scheme.signed,
        "QuantizeBias": not scheme.float_bias,
        # The mean of the batches' extremes, not the extreme of all: one outlier would make every step of a
        # layer coarse. It took a ResNet-50 from 94.5% of its answers kept to 99.0%.
        "CalibMovingAverage": True,
    }
    with TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        try:
            # Symbolic shape inference fails on what torch.onnx exports, and nothing here needs it.
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            model = onnx.load(prepared)
            exact = _exact(model.graph, scheme)
            if careful:
                exact += first_layers(model.graph, scheme.first_layers)
                round_weights(model, calibration_images, exact)
                onnx.save(model, prepared)
            quantize_static(
                prepared,
                target,
                batches,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=exact,
                # Entropy and percentile agree no better, for ten times the time.
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
        except (OSError, ImportError):  # a full disk, or a package that isn't installed: told by the callers
            raise
        except Exception as error:  # the quantizer raises many kinds
            raise ExportError(f"ONNX Runtime can't quantize {source.name}: {error}") from error
    copy_metadata(source, target)


def _exact(graph: onnx.GraphProto, scheme: Scheme) -> list[str]:
    exact = float_nodes(graph) + pooling_and_head(graph)
    return exact if scheme.signed else exact + around_max_pooling(graph)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back advice on a step that is done here, which the quantizer gives through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
