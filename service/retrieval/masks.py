"""Which rows a filter keeps: a mask for each segment, made from its columns."""

from collections.abc import Sequence

import numpy as np

from service.retrieval.columns import Columns, Mask
from service.retrieval.filters import And, Equals, Exists, Filter, In, Not, Or
from service.retrieval.segments import Segment


def kept_by(condition: Filter, segments: Sequence[Segment]) -> list[Mask]:
    """For each segment bool [used]: the rows that are not dead and that the filter keeps.

    Args:
        condition: one that `check_filter` let through.
        segments: of the collection that it was checked for.
    """
    return [kept_of(condition, segment) for segment in segments]


def kept_of(condition: Filter, segment: Segment) -> Mask:
    """`kept_by` of one segment."""
    mask = _mask(condition, segment.columns, segment.used)
    if segment.dead_count:
        mask &= ~segment.dead[: segment.used]
    return mask


def _mask(condition: Filter, columns: Columns, used: int) -> Mask:
    """A new array, which the caller may change."""
    match condition:
        case And(parts):
            mask = np.ones(used, np.bool_)
            for part in parts:
                mask &= _mask(part, columns, used)
            return mask
        case Or(parts):
            mask = np.zeros(used, np.bool_)
            for part in parts:
                mask |= _mask(part, columns, used)
            return mask
        case Not(part):
            return ~_mask(part, columns, used)
    column = columns[condition.attribute]
    match condition:
        case Equals(_, value):
            return column.equals(value, used)
        case In(_, values):
            return column.is_in(values, used)
        case Exists():
            return column.exists(used)
    return column.within(condition.bounds, used)
