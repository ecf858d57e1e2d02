"""The same search by FAISS's own calls alone: what the index is compared with."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

_faiss: Any = faiss  # its stubs lack what is used here
_pointer = _faiss.swig_ptr


class BinaryFloor:
    """FAISS's binary flat index over codes, and its inner products with the candidates' vectors.

    The codes are signs around the mean after FAISS's random rotation; as many candidates are scored as the
    recall takes, which the caller finds out.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        faiss.omp_set_num_threads(1)
        self._vectors = vectors
        dimension = vectors.shape[1]
        self._rotation = faiss.RandomRotationMatrix(dimension, dimension)
        self._rotation.init(1)
        self._mean = vectors[::10].mean(axis=0)
        self._index = faiss.IndexBinaryFlat(dimension)
        for start in range(0, len(vectors), 10_000):
            self._index.add(self._codes(vectors[start : start + 10_000]))

    def search(self, queries: NDArray[np.float32], top_k: int, candidates: int) -> NDArray[np.int64]:
        """Row numbers int64 [queries, top_k], not in order."""
        faiss.omp_set_num_threads(1)
        _, found = self._index.search(self._codes(queries), candidates)
        scores = np.empty(found.shape, np.float32)
        _faiss.fvec_inner_products_by_idx(
            *map(_pointer, (scores, queries, self._vectors, found)), queries.shape[1], *found.shape
        )
        best = np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
        return np.take_along_axis(found, best, 1)

    def _codes(self, vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.packbits(self._rotation.apply(vectors - self._mean) > 0, axis=1)


class SelectedFloor:
    """FAISS's flat index and a selector of some rows."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors

    def search(self, queries: NDArray[np.float32], top_k: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers int64 [queries, top_k], nearest first."""
        faiss.omp_set_num_threads(1)
        scores, found = (np.empty((len(queries), top_k), dtype) for dtype in (np.float32, np.int64))
        selector = _faiss.IDSelectorArray(rows)
        _faiss.knn_inner_product(
            *map(_pointer, (queries, self._vectors)),
            queries.shape[1], len(queries), len(self._vectors), top_k,
            *map(_pointer, (scores, found)), selector,
        )  # fmt: skip
        return found
