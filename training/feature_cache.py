"""Vectors that a frozen network gave for pictures, kept on disk for the next time.

A folder a network: <root>/<key>/, the key a digest of everything that a vector depends on but the picture.
In it lie description.json, for people, and .safetensors files, each written whole or not at all, with
vectors beside the SHA-256 of the files that they are of. So a picture that changed, another network, or
another way to look at pictures never finds a vector; a copied or moved picture does.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import RunError, SettingError
from training.whole_file import whole_file

_FORMAT = 1
_DIGEST_BYTES = 32


class FeatureCache:
    """The vectors of one network and view.

    Args:
        root: of all caches; made if missing.
        made_by: what the vectors depend on, as JSON takes it.
        dimension: of a vector.

    Attributes:
        folder: <root>/<key>.
        damaged: files that couldn't be read and were deleted.

    Raises:
        SettingError: the folder can't be made.
    """

    def __init__(self, root: Path, made_by: Mapping[str, object], dimension: int) -> None:
        described = {"format": _FORMAT, "dimension": dimension, **made_by}
        text = json.dumps(described, sort_keys=True, indent=2)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:32]
        self.dimension = dimension
        self.damaged: list[Path] = []
        # Where each picture's vector lies: which of the files, and which row of it.
        self._places: dict[bytes, tuple[int, int]] = {}
        self._parts: list[Tensor] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self.folder / "description.json") as file:
                file.write((text + "\n").encode())
        except OSError as error:
            raise SettingError(
                f"--feature-cache is {root}, which can't be written to: {error.strerror or error}"
            ) from error
        for path in sorted(self.folder.glob("*.safetensors")):
            self._read(path)

    def __len__(self) -> int:
        """Pictures that there is a vector for."""
        return len(self._places)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def add(self, digests: Sequence[bytes], vectors: Tensor) -> None:
        """Keep the vectors of some pictures.

        Args:
            digests: of the pictures' content, 32 bytes each.
            vectors: float32 [pictures, dimension], on the CPU.

        Raises:
            RunError: they can't be written, as when the disk is full.
        """
        from safetensors.torch import save

        keys = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES).copy()
        vectors = vectors.contiguous()
        content = save(
            {"digests": torch.from_numpy(keys), "vectors": vectors}, {"sha256": _checksum(keys, vectors)}
        )
        try:
            with whole_file(self.folder / f"{secrets.token_hex(8)}.safetensors") as file:
                file.write(content)
        except OSError as error:
            raise RunError(f"{self.folder}: features can't be written: {error.strerror or error}") from error
        self._take(digests, vectors)

    def vectors(self, digests: Sequence[bytes]) -> Tensor:
        """Float32 [pictures, dimension].

        Raises:
            KeyError: there is none of a picture.
        """
        places = torch.tensor([self._places[digest] for digest in digests], dtype=torch.int64).reshape(-1, 2)
        found = torch.empty(len(digests), self.dimension)
        for part, vectors in enumerate(self._parts):
            wanted = places[:, 0] == part
            found[wanted] = vectors[places[wanted, 1]]
        return found

    def clear(self) -> None:
        """Forget and delete all vectors."""
        self._places.clear()
        self._parts.clear()
        for path in self.folder.glob("*.safetensors"):
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                keys, vectors = file.get_tensor("digests"), file.get_tensor("vectors")
                checksum = (file.metadata() or {}).get("sha256")
            whole = (
                keys.dtype == torch.uint8
                and vectors.dtype == torch.float32
                and keys.shape == (len(vectors), _DIGEST_BYTES)
                and vectors.shape == (len(keys), self.dimension)
                and checksum == _checksum(keys.numpy(), vectors)
            )
        except (OSError, SafetensorError):
            whole = False
        if not whole:
            self.damaged.append(path)
            path.unlink(missing_ok=True)
            return
        self._take([row.tobytes() for row in keys.numpy()], vectors)

    def _take(self, digests: Sequence[bytes], vectors: Tensor) -> None:
        part = len(self._parts)
        self._parts.append(vectors)
        self._places.update((digest, (part, row)) for row, digest in enumerate(digests))


def default_cache() -> Path:
    """`$XDG_CACHE_HOME`/fovea/features; ~/.cache where that isn't set."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "fovea", "features")


def _checksum(keys: NDArray[np.uint8], vectors: Tensor) -> str:
    digest = hashlib.sha256(keys.tobytes())
    digest.update(vectors.numpy().tobytes())
    return digest.hexdigest()
