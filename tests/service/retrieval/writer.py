"""A process that writes to an index until it is killed, and says what was acknowledged.

    python -m tests.service.retrieval.writer FOLDER SEED [hold]

Prints one JSON line before each write (`{"begin": …}`) and one after it returned (`{"done": true}`); with
`hold` it only opens the folder, prints `{"open": true}` and waits.
"""

import json
import sys
from pathlib import Path

import numpy as np

from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import CollectionSpec, Item, Metric

COLLECTION = CollectionSpec("photos", 32, Metric.L2, "m:fp32")
# Small, so that a run makes many and rewrites many.
SEGMENT_ROWS = 32


def vector(value: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """One that tells which write it is of."""
    return np.arange(value, value + 32, dtype=np.float32)


def say(**line: object) -> None:
    """One line at once into the pipe."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(folder: Path, seed: int, *, hold: bool) -> None:
    """Write for ever."""
    index = EmbeddedIndex(folder, max_segment_rows=SEGMENT_ROWS)
    if hold:
        say(open=True)
        sys.stdin.read()
    if not index.list_collections():
        index.create(COLLECTION)
    rng = np.random.default_rng(seed)
    value = seed * 100_000
    while True:
        ids = sorted({f"id-{n}" for n in rng.integers(0, 200, rng.integers(1, 40))})
        if rng.random() < 0.3:
            say(begin="delete", ids=ids)
            index.delete("photos", ids)
        else:
            value += 1
            say(begin="upsert", ids=ids, value=value)
            index.upsert("photos", [Item(name, vector(value), {"value": value}) for name in ids])
        say(done=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), hold=sys.argv[3:] == ["hold"])
