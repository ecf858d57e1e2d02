"""What a foreign model computes by itself, one picture at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from service.cli.import_model.errors import ImportRefused
from service.cli.import_model.foreign import Foreign

# Of its log: warnings and worse are printed by default.
_DEFAULT_SEVERITY, _FATAL_ONLY = 2, 4


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back ONNX Runtime's own lines on standard error; what they say is raised too."""
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_DEFAULT_SEVERITY)


class Reference:
    """A session on the model as it is, with inner tensors made outputs."""

    def __init__(self, foreign: Foreign, tensors: Sequence[str]) -> None:
        """Load it.

        Args:
            foreign: the model.
            tensors: names of what `run` gives, once or several times.

        Raises:
            ImportRefused: ONNX Runtime can't load it; says why.
        """
        self._foreign, self._tensors = foreign, list(dict.fromkeys(tensors))
        model = onnx.ModelProto()
        model.CopyFrom(foreign.model)
        there = {value.name for value in model.graph.output}
        # ONNX Runtime works out their types by itself.
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in self._tensors if name not in there
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        try:
            with quiet():
                self._session = onnxruntime.InferenceSession(
                    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ImportRefused(f"{foreign.file}: ONNX Runtime can't load it: {error}") from error

    def run(self, values: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """The tensors by name, each [pictures, …].

        A graph made for batches of another size than 1 gets each picture as often as that takes.

        Args:
            values: [pictures, …], the model's input.

        Raises:
            ImportRefused: the run fails, or a tensor has no row for each picture.
        """
        copies = self._foreign.fixed_batch or 1
        rows: list[list[NDArray[np.float64]]] = []
        kind = onnx.helper.tensor_dtype_to_np_dtype(self._foreign.input_type)
        for value in values.astype(kind):
            batch = np.repeat(value[None], copies, axis=0)
            try:
                outputs = self._session.run(self._tensors, {self._foreign.input_name: batch})
            except Exception as error:  # as above
                raise ImportRefused(f"{self._foreign.file}: its run failed: {error}") from error
            rows.append([self._row(*pair, copies) for pair in zip(self._tensors, outputs, strict=True)])
        return {
            name: np.stack(each) for name, each in zip(self._tensors, zip(*rows, strict=True), strict=True)
        }

    def _row(self, name: str, output: object, copies: int) -> NDArray[np.float64]:
        if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or output.shape[:1] != (copies,):
            kind = f"{output.dtype} {list(output.shape)}" if isinstance(output, np.ndarray) else type(output)
            raise ImportRefused(
                f"{self._foreign.file}: {name!r} is {kind} for {copies} picture(s); expected floats with one "
                "row a picture"
            )
        row: NDArray[np.float64] = output[0].astype(np.float64)
        return row
