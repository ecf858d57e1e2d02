"""How a batch goes through a session: plainly, or through buffers that stay where they are."""

import ctypes
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Tensor = NDArray[np.generic]


class Runs(Protocol):
    """Runs batches whose size is one of the session's batch sizes."""

    def __call__(self, batch: NDArray[np.uint8]) -> list[Tensor]:
        """uint8 [batch, height, width, 3] → the outputs, in the order of their names."""


class PlainRuns:
    """Hands over arrays; right where the model runs in the same memory."""

    def __init__(
        self, session: onnxruntime.InferenceSession, input_name: str, output_names: list[str]
    ) -> None:
        self._session, self._input_name, self._output_names = session, input_name, output_names

    def __call__(self, batch: NDArray[np.uint8]) -> list[Tensor]:
        """As `Runs` says."""
        outputs: list[Tensor] = self._session.run(self._output_names, {self._input_name: batch})
        return outputs


class BoundRuns:
    """Input and output buffers per batch size, bound once: pinned in host memory, or on the GPU for graphs.

    Copies between pinned memory and the GPU need no copy of their own beforehand. A CUDA graph is a
    recording of addresses, so its buffers stay on the GPU.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        input_name: str,
        outputs: dict[str, tuple[int, ...]],
        *,
        device: int | None,
        graphs: bool = False,
    ) -> None:
        """Nothing is bound yet; the first run of a size does that, so warm up.

        Args:
            session: on the GPU, or, for tests, on the CPU.
            input_name: of the graph's only input.
            outputs: name → shape without the batch; float32 or float16 as the graph says.
            device: the GPU's number; None for the CPU.
            graphs: replay CUDA graphs.
        """
        self._session, self._input_name, self._outputs = session, input_name, outputs
        self._device, self._graphs = device, graphs
        types: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        self._types = {node.name: types[node.type] for node in session.get_outputs() if node.name in outputs}
        self._bound: dict[int, _Buffers] = {}

    def __call__(self, batch: NDArray[np.uint8]) -> list[Tensor]:
        """As `Runs` says."""
        size = len(batch)
        buffers = self._bound.get(size)
        if buffers is None:
            buffers = self._bound[size] = self._bind(batch.shape)
        if self._graphs:
            buffers.input.update_inplace(batch)
        else:
            buffers.input_array[...] = batch
        self._session.run_with_iobinding(buffers.binding, buffers.run_options)
        if self._graphs:
            return [value.numpy() for value in buffers.outputs]
        # The buffers are the next run's too.
        return [array.copy() for array in buffers.output_arrays]

    def _bind(self, input_shape: tuple[int, ...]) -> "_Buffers":
        size = input_shape[0]
        shapes = {name: (size, *shape) for name, shape in self._outputs.items()}
        if self._graphs:
            new = onnxruntime.OrtValue.ortvalue_from_shape_and_type
            buffers = _Buffers(
                new(input_shape, np.uint8, "cuda", self._device),
                [new(shape, self._types[name], "cuda", self._device) for name, shape in shapes.items()],
            )
        else:
            arrays = [np.zeros(input_shape, np.uint8)]
            arrays += [np.zeros(shape, self._types[name]) for name, shape in shapes.items()]
            if self._device is not None:
                for array in arrays:
                    pin(array)
            first, *rest = (onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays)
            buffers = _Buffers(first, rest, arrays[0], arrays[1:])
        buffers.binding = self._session.io_binding()
        buffers.binding.bind_ortvalue_input(self._input_name, buffers.input)
        for name, value in zip(shapes, buffers.outputs, strict=True):
            buffers.binding.bind_ortvalue_output(name, value)
        buffers.run_options = onnxruntime.RunOptions()
        if self._graphs:  # each size is its own recording
            buffers.run_options.add_run_config_entry("gpu_graph_id", str(size))
        return buffers


class _Buffers:
    """Of one batch size."""

    def __init__(
        self,
        first: onnxruntime.OrtValue,
        outputs: list[onnxruntime.OrtValue],
        input_array: NDArray[np.uint8] | None = None,
        output_arrays: Sequence[Tensor] = (),
    ) -> None:
        self.input, self.outputs = first, outputs
        self.input_array: NDArray[np.uint8] = np.empty(0, np.uint8) if input_array is None else input_array
        self.output_arrays = output_arrays
        self.binding: onnxruntime.IOBinding
        self.run_options: onnxruntime.RunOptions


def pin(array: Tensor) -> bool:
    """Lock an array's pages, so that the GPU copies from and to them directly; for as long as it lives.

    Returns:
        Whether that worked; without it runs are right, but their copies slower.
    """
    for version in (13, 12):
        try:
            register = ctypes.CDLL(f"libcudart.so.{version}").cudaHostRegister
        except OSError:
            continue
        register.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
        portable = 1  # pinned for every GPU of the process
        return int(register(array.ctypes.data, array.nbytes, portable)) == 0
    return False
