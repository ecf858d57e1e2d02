"""kill -9 at random moments, and what is in the index afterwards: all that was acknowledged, or not.

    python -m benchmarks.index_crash

A process writes to an embedded index without a pause: upserts, deletes by id and by filter, snapshots of the
index and of the collection, another collection that takes its place, and so many items or so few that the
index goes over to its 1-bit tier and back. It says each call before it is made and after it returned. It is
killed (SIGKILL) at a random moment of one of these, each kind in its turn; also while it reads the index at
its start, and while it changes the tier. Then the index is opened, from what the dead process left or from a
copy of it, and compared: every item that was acknowledged, with its vector and attributes; nothing that was
deleted; of the one call that was under way all or nothing; what searches find, exact and by the 1-bit tier;
SQLite's own check; the files of snapshots. The next process goes on from there.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from service.errors import FoveaError
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.filters import Equals, Range
from service.retrieval.index import CollectionSpec, Item, Metric, SearchOptions
from service.retrieval.parquet_file import open_collection, write_collection
from service.retrieval.record import FILE_NAME
from service.retrieval.schema import AttributeType

DIMENSION = 32
SPEC = CollectionSpec("photos", DIMENSION, Metric.L2, "", {"value": AttributeType.INT})
IDS = [f"id-{n}" for n in range(800)]
# Small, so that the tiers change often and a run makes many segments.
SEGMENT_ROWS = 64
# Items from which on there is a 1-bit tier; with half as many it goes.
MIN_TIER_ROWS = 256
CALLS = ("upsert", "delete", "delete_matching", "flush", "export", "replace")
KINDS = ("open", "tier change", *CALLS)
# How long a change of the tier may be under way after the call that caused it.
_TIER_CHANGE_S = 0.2
State = dict[str, int]


def main() -> None:
    """Kill, compare, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the calls and of the moments of the kills")
    parser.add_argument("--quick", action="store_true", help="a smoke run with eight kills, without figures")
    parser.add_argument("--writer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # What the index tells; the pipe is for the writer's own lines.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if options.writer:
        write(options.writer, options.seed)
    kills = len(KINDS) if options.quick else options.kills
    draw = random.Random(options.seed)  # noqa: S311 - moments, not secrets
    print(describe())
    losses, state = 0, State()
    killer = Killer(draw)
    with tempfile.TemporaryDirectory() as work:
        folder, copy = Path(work) / "index", Path(work) / "copy"
        for number in range(1, kills + 1):
            kind = KINDS[number % len(KINDS)]
            acknowledged, pending = killer.run(folder, options.seed + number, state, kind)
            opened = folder
            if draw.random() < 0.5:  # and leave what the dead one left to the next
                opened = shutil.copytree(folder, copy)
            try:
                state = stored(opened)
                if state not in (acknowledged, pending):
                    raise AssertionError(difference(state, acknowledged, pending))
                print(f"kill {number}, {kind}: {len(state)} items", flush=True)
            except (AssertionError, FoveaError) as error:
                losses += 1
                print(f"kill {number}, {kind}: LOSS: {error}", flush=True)
                shutil.rmtree(folder)  # go on with an empty one
                state = {}
            shutil.rmtree(copy, ignore_errors=True)
    print(f"calls acknowledged: {killer.calls:,}; changes of the tier seen: {killer.tier_changes}")
    conclude(
        Figure("index_crash_kills", kills, 200),
        Figure("index_crash_losses", losses, 0, at_most=True),
        quick=options.quick,
    )


def vector(value: int) -> NDArray[np.float32]:
    """One that tells which write it is of, in every direction of space."""
    return np.random.default_rng(value).standard_normal(DIMENSION).astype(np.float32)


def open_index(folder: Path) -> EmbeddedIndex:
    """With limits so small that everything happens often."""
    return EmbeddedIndex(folder, max_segment_rows=SEGMENT_ROWS, min_tier_rows=MIN_TIER_ROWS)


def write(folder: Path, seed: int) -> None:
    """Write for ever, and say what."""
    say(begin="open")
    index = open_index(folder)
    names = [info.spec.name for info in index.list_collections()]
    if "photos" not in names:
        index.create(SPEC)
    if "new" in names:
        index.drop("new")
    with index.items("photos") as pages:
        state = {item.id: int(item.attributes["value"]) for page in pages for item in page}
    say(done=True, tier=index.describe("photos").index_type)
    draw = random.Random(seed)  # noqa: S311 - calls, not secrets
    value = seed * 1_000_000
    growing = True
    while True:
        growing = len(state) < 2 * MIN_TIER_ROWS if growing else len(state) < MIN_TIER_ROWS // 3
        kinds = CALLS + ("upsert" if growing else "delete",) * 6
        kind = draw.choice(kinds)
        ids = sorted(draw.sample(IDS, draw.randint(1, 100)))
        value += 1
        below = sorted(state.values())[len(state) // 20] if state else 0
        operation = {"begin": kind, "ids": ids, "value": value, "below": below}
        say(**operation)
        if kind == "upsert":
            index.upsert("photos", [made(name, value) for name in ids])
        elif kind == "delete":
            index.delete("photos", ids)
        elif kind == "delete_matching":
            index.delete_matching("photos", Range("value", lt=below))
        elif kind == "flush":
            index.flush("photos")
        elif kind == "export":
            with index.items("photos") as pages:
                write_collection(folder / "photos.parquet", SPEC, pages)
        else:
            index.create(CollectionSpec("new", DIMENSION, Metric.L2, "", SPEC.attributes))
            index.upsert("new", [made(name, value) for name in ids])
            index.replace("photos", "new")
        state = applied(state, operation)
        say(done=True, tier=index.describe("photos").index_type)


def made(name: str, value: int) -> Item:
    """An item of the write of this number."""
    return Item(name, vector(value), {"value": value})


def say(**line: object) -> None:
    """One line at once into the pipe."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def applied(state: State, operation: Mapping[str, Any]) -> State:
    """The number of the write by id, after a call that was announced."""
    kind, written = operation["begin"], dict.fromkeys(operation.get("ids", ()), operation.get("value", 0))
    if kind == "upsert":
        return state | written
    if kind == "delete":
        return {name: value for name, value in state.items() if name not in written}
    if kind == "delete_matching":
        return {name: value for name, value in state.items() if value >= operation["below"]}
    return written if kind == "replace" else state


def tiered(count: int, *, before: bool) -> bool:
    """Whether so many items are to have a tier."""
    return count >= (MIN_TIER_ROWS // 2 if before else MIN_TIER_ROWS)


class Killer:
    """Runs writers and kills them.

    Attributes:
        calls: that were acknowledged, of all writers.
        tier_changes: that writers saw.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        # Of the last call of each kind.
        self._seconds: dict[str, float] = {"tier change": _TIER_CHANGE_S}
        self.calls, self.tier_changes = 0, 0

    def run(self, folder: Path, seed: int, state: State, kind: str) -> tuple[State, State]:
        """What must be there after a kill in that kind of call: all acknowledged; and the one under way."""
        wait_for = 1 if kind in ("open", "tier change") else self._draw.randint(1, 12)
        pending: dict[str, Any] = {"begin": "nothing"}
        killed, large, tier, began = False, False, "", 0.0
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.index_crash", "--writer", str(folder), "--seed", str(seed)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:  # to the end: what it said before it died counts
                message, large = json.loads(line), tiered(len(state), before=large)
                if "begin" in message:
                    pending, began = message, time.monotonic()
                    wait_for -= message["begin"] == kind
                else:
                    self._seconds[pending["begin"]] = time.monotonic() - began
                    self.calls += 1
                    self.tier_changes += message["tier"] != tier != ""
                    tier = message["tier"]
                    state, pending = applied(state, pending), {"begin": "nothing"}
                    wait_for -= kind == "tier change" and large != tiered(len(state), before=large)
                if wait_for == 0 and not killed:
                    # Somewhere in it, by how long the last one took, or a little behind it.
                    time.sleep(self._draw.random() * 1.2 * self._seconds.get(kind, 0.01))
                    writer.kill()
                    killed = True
        if writer.returncode != -signal.SIGKILL:
            raise SystemExit(f"the writer ended by itself with status {writer.returncode}")
        return state, applied(state, pending)


def stored(folder: Path) -> State:
    """What an index that was left by a dead process holds.

    Raises:
        AssertionError: it contradicts itself.
        FoveaError: it can't be opened, or a file of it not be read.
    """
    index = open_index(folder)
    try:
        if "photos" not in [info.spec.name for info in index.list_collections()]:
            state = State()  # killed before it was made
        else:
            with index.items("photos") as pages:
                items = [item for page in pages for item in page]
            state = {item.id: int(item.attributes["value"]) for item in items}
            check_reads(index, items, state)
            check_searches(index, state)
    finally:
        index.close()
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "SQLite finds damage"
    export = folder / "photos.parquet"
    if export.exists():
        with open_collection(export) as file:
            exported = [item for batch in file.batches() for item in batch]
        assert all((item.vector == vector(int(item.attributes["value"]))).all() for item in exported)
    return state


def check_reads(index: EmbeddedIndex, items: list[Item], state: State) -> None:
    """Every way to read the items tells the same."""
    assert len(state) == len(items) == index.count("photos"), "an item is there twice, or not counted"
    for item in items:
        assert (item.vector == vector(state[item.id])).all(), f"the vector of {item.id} is another write's"
    assert [item.id for item in index.scan("photos", limit=len(IDS))] == sorted(state), "scan differs"
    assert {item.id for item in index.get("photos", IDS)} == set(state), "get differs"
    for value, count in Counter(state.values()).items():
        assert index.count("photos", Equals("value", value)) == count, "a filter differs"


def check_searches(index: EmbeddedIndex, state: State) -> None:
    """Exact search finds all items; the other no deleted one, and the nearest of each of some items."""
    queries = np.stack([vector(value) for value in list(state.values())[:8]] or [vector(0)])
    for exact in (True, False):
        options = SearchOptions(recall=1 if exact else 0.98)
        for query, neighbors in zip(
            queries, index.search("photos", queries, len(IDS), options=options), strict=True
        ):
            ids = [neighbor.id for neighbor in neighbors]
            assert len(set(ids)) == len(ids), "an item is found twice"
            assert set(ids) <= set(state), "a deleted item is found"
            assert not exact or len(ids) == len(state), "an item isn't found"
            for neighbor in neighbors:
                distance = float(np.linalg.norm(vector(state[neighbor.id]) - query))
                assert abs(neighbor.score + distance) < 1e-4, f"the score of {neighbor.id} is another's"
            assert not state or neighbors[0].score > -1e-4, "an item isn't the nearest to itself"


def difference(state: State, acknowledged: State, pending: State) -> str:
    """How an index differs from what was acknowledged, in words."""
    lost = [name for name in acknowledged if name not in state and name in pending]
    back = [name for name in state if name not in acknowledged and name not in pending]
    other = [
        name
        for name, value in state.items()
        if name in acknowledged and value not in (acknowledged[name], pending.get(name))
    ]
    return f"{len(lost)} lost {lost[:3]}, {len(back)} came back {back[:3]}, {len(other)} are of another write"


if __name__ == "__main__":
    main()
