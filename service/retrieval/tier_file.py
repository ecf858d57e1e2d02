"""A 1-bit tier on disk: codes by the sequence numbers of their rows, so right whenever it was written."""

from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from service.retrieval.index import CollectionSpec
from service.retrieval.margins import RECALLS, Margins
from service.retrieval.own_pages import own_pages
from service.retrieval.section_file import BrokenFile, Buffer, SectionReader, write_sections
from service.retrieval.signs import Codes, SignCoder
from service.retrieval.tier import Tier

log = structlog.get_logger()
_KIND = "one-bit tier, heads and tails"


def tier_file_of(folder: Path, key: int) -> Path:
    """Where a collection's tier belongs."""
    return folder / f"{key}.tier"


def write_tier(folder: Path, key: int, spec: CollectionSpec, tier: Tier) -> None:
    """Write a collection's tier in place of the one before.

    Raises:
        OSError: the disk refuses.
    """
    header = {
        **_identity(key, spec),
        "bits": tier.coder.bit_count,
        "head_bits": tier.margins.head_bits,
        "rows": len(tier.codes),
        "trained_count": tier.trained_count,
        "measured_until": tier.measured_until,
        "zs": tier.margins.zs,
        "scored_share": tier.margins.scored_share,
    }
    sections: dict[str, Buffer] = {
        "center": tier.coder.center,
        "directions": tier.coder.directions,
        "sequences": tier.sequences,
        "heads": tier.codes.heads,
        "tails": tier.codes.tails,
        "lengths": tier.codes.lengths,
        "projections": tier.codes.projections,
    }
    folder.mkdir(exist_ok=True)
    write_sections(tier_file_of(folder, key), header, sections)


def read_tier(folder: Path, key: int, spec: CollectionSpec) -> Tier | None:
    """What `write_tier` wrote, without covers; None where there is no such file, or a damaged one."""
    path = tier_file_of(folder, key)
    try:
        return _read(path, key, spec)
    except FileNotFoundError:
        return None
    except (BrokenFile, OSError, ValueError, KeyError, TypeError) as error:
        log.warning("tier_file_left_out", path=str(path), reason=str(error))
        path.unlink(missing_ok=True)
        return None


def _read(path: Path, key: int, spec: CollectionSpec) -> Tier:
    with path.open("rb", buffering=0) as file:
        reader = SectionReader(file)
        header = reader.header
        wanted = _identity(key, spec)
        if {name: header.get(name) for name in wanted} != wanted:
            raise BrokenFile(f"it holds something else than {wanted}")
        bits, head_bits, rows = (int(header[name]) for name in ("bits", "head_bits", "rows"))
        if sum(reader.sizes.values()) > path.stat().st_size:  # before room is made for them
            raise BrokenFile("its sections are larger than it is")
        if len(header["zs"]) != len(RECALLS) or reader.sizes["heads"] != rows * head_bits // 8:
            raise BrokenFile("its header doesn't fit its sections")
        center, directions = (
            np.empty(spec.dimension, np.float32),
            np.empty((bits, spec.dimension), np.float32),
        )
        sequences = own_pages((rows,), np.int64)
        codes = Codes.room(rows, bits, head_bits)
        arrays: dict[str, NDArray[Any]] = {
            "center": center,
            "directions": directions,
            "sequences": sequences,
            "heads": codes.heads,
            "tails": codes.tails,
            "lengths": codes.lengths,
            "projections": codes.projections,
        }
        for name, array in arrays.items():
            reader.read_into(name, array)
        reader.finish()
    margins = Margins(tuple(map(float, header["zs"])), float(header["scored_share"]), head_bits)
    coder = SignCoder(center, directions)
    trained_count, measured_until = int(header["trained_count"]), int(header["measured_until"])
    return Tier(coder, margins, trained_count, measured_until, codes, sequences, ())


def _identity(key: int, spec: CollectionSpec) -> dict[str, object]:
    return {"kind": _KIND, "collection": key, "dimension": spec.dimension, "metric": spec.metric.value}
