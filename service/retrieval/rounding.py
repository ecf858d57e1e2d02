"""How far a comparison in float32 may be off, which tells whether what was found is proved to be the nearest.

A measure is what engines compare: the inner product, or minus the squared distance; higher is nearer.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric

_EPSILON = 2.0**-24
_TINY = 2.0**-126


class Rounding:
    """Of the measures of one metric and dimension.

    A float32 sum of d products is off by at most d·u of the sum of their magnitudes, in whatever order it is
    taken (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); the rest is for the
    differences, the root and the rounding of scores. Products below the normal range may be lost.
    """

    def __init__(self, metric: Metric, dimension: int) -> None:
        self._squared = metric is Metric.L2
        self._relative, self._absolute = (dimension + 8) * _EPSILON, 2 * dimension * _TINY

    def measures(self, scores: NDArray[Any] | float) -> NDArray[np.float64]:
        """The measures that scores stand for, of the same shape."""
        wide = np.asarray(scores, np.float64)
        return np.asarray(-np.square(wide)) if self._squared else wide

    def bound(self, scale: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """How far a measure may be off whose products' magnitudes sum up to `scale`, of the same shape."""
        return np.asarray(self._relative * scale + self._absolute)

    def error(
        self, measures: NDArray[np.float64] | float, queries: NDArray[np.float32], largest_norm: float
    ) -> NDArray[np.float64]:
        """How far measures of about this size may be off, where distances are summed from differences.

        Args:
            measures: float64 [...].
            queries: float32 [..., dimension].
            largest_norm: no vector that they are compared with is longer.
        """
        if self._squared:
            return self.bound(np.abs(measures))
        return self.bound(largest_norm * np.linalg.norm(queries.astype(np.float64), axis=-1))
