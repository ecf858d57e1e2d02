"""One model in ONNX Runtime: load, check against the manifest, warm up, run."""

import hashlib
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InferenceFailed, ManifestError
from service.manifest import Manifest
from service.providers import create_session


@dataclass(frozen=True)
class Outputs:
    """What the model says of a batch, or of one image of it (then without the first axis).

    Attributes:
        logits: float32 [batch, classes].
        embedding: float32 [batch, embedding_dimension], L2-normalised.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]

    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return bool(np.isfinite(self.logits).all() and np.isfinite(self.embedding).all())

    def split(self) -> "list[Outputs]":
        """One per image, in order."""
        return [Outputs(*pair) for pair in zip(self.logits, self.embedding, strict=True)]


class ModelSession:
    """A loaded model; `run` may be called from one thread at a time.

    Attributes:
        execution_provider: what really runs it, as ONNX Runtime names it.
        precision: of the variant that was loaded.
    """

    def __init__(self, manifest: Manifest, execution_provider: str, intra_op_threads: int) -> None:
        """Load the package's fp32 variant.

        Raises:
            ManifestError: the file isn't the manifest's (digest, inputs, outputs) or can't be loaded.
            ProviderUnavailable: names what is missing.
        """
        self.precision = "fp32"
        variant = manifest.variant(self.precision)
        path = manifest.folder / variant.file
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ManifestError(f"{path}: can't be read: {error.strerror}") from error
        if digest != variant.sha256:
            raise ManifestError(f"{path}: its sha256 is {digest}; the manifest says {variant.sha256}")
        self._manifest = manifest
        self._session = create_session(path, execution_provider, intra_op_threads)
        self.execution_provider: str = self._session.get_providers()[0]
        self._input_shape = (manifest.input_height, manifest.input_width, 3)
        self._output_names = [manifest.logits_name, manifest.embedding_name]
        self._check_graph()

    def _check_graph(self) -> None:
        inputs = {node.name: (node.type, tuple(node.shape[1:])) for node in self._session.get_inputs()}
        expected = {self._manifest.input_name: ("tensor(uint8)", self._input_shape)}
        if inputs != expected:
            raise ManifestError(
                f"{self._manifest.folder}: the graph's inputs are {inputs}; expected {expected}"
            )
        outputs = {node.name: node.shape[-1] for node in self._session.get_outputs()}
        dimensions = (len(self._manifest.labels), self._manifest.embedding_dimension)
        for name, dimension in zip(self._output_names, dimensions, strict=True):
            if outputs.get(name) != dimension:
                raise ManifestError(
                    f"{self._manifest.folder}: the graph's outputs are {outputs}; "
                    f"expected {name!r} with {dimension} values per image"
                )

    def warm_up(self, max_batch_size: int) -> float:
        """Run every power of two up to `max_batch_size`, and that, so that no request pays for it.

        Returns:
            How long the slowest warm run took, in seconds.

        Raises:
            ManifestError: a run fails, or its outputs aren't what the manifest says.
        """
        sizes = {1 << power for power in range(max_batch_size.bit_length())} | {max_batch_size}
        slowest = 0.0
        for size in sorted(sizes):
            batch = np.zeros((size, *self._input_shape), np.uint8)
            try:
                self.run(batch)
                started = time.perf_counter()
                self.run(batch)
            except InferenceFailed as error:
                raise ManifestError(
                    f"{self._manifest.folder}: warm-up with {size} images: {error}"
                ) from error
            slowest = max(slowest, time.perf_counter() - started)
        return slowest

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Run one batch.

        Args:
            batch: uint8 [batch, height, width, 3], RGB.

        Raises:
            InferenceFailed: the runtime's own error, or outputs of another shape than promised.
        """
        try:
            logits, embedding = self._session.run(self._output_names, {self._manifest.input_name: batch})
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise InferenceFailed(f"the model's run failed: {error}") from error
        outputs = Outputs(logits.astype(np.float32, copy=False), embedding.astype(np.float32, copy=False))
        shapes = (outputs.logits.shape, outputs.embedding.shape)
        expected = (
            (len(batch), len(self._manifest.labels)),
            (len(batch), self._manifest.embedding_dimension),
        )
        if shapes != expected:
            raise InferenceFailed(f"the model gave outputs of shapes {shapes}; expected {expected}")
        return outputs
