"""Processes that die: kill -9 loses nothing acknowledged, and a folder has one writer."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import IndexLocked, IndexUnusable
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.lock import FolderLock
from tests.service.retrieval.writer import SEGMENT_ROWS, vector

ROOT = Path(__file__).parents[3]
ROUNDS = 10
State = dict[str, int]


def start_writer(folder: Path, seed: int, *mode: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.service.retrieval.writer", str(folder), str(seed), *mode],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def applied(state: State, operation: dict[str, Any]) -> State:
    """The value by id after an operation that the writer announced."""
    if operation["begin"] == "delete":
        return {name: value for name, value in state.items() if name not in operation["ids"]}
    return state | dict.fromkeys(operation["ids"], operation["value"])


def run_and_kill(folder: Path, seed: int, state: State) -> tuple[State, State]:
    """What must be there after the kill: all acknowledged; and the one write then under way, or not."""
    with start_writer(folder, seed) as writer:
        assert writer.stdout is not None
        chance = random.Random(seed)
        operation: dict[str, Any] | None = None
        acknowledged, last = 0, chance.randint(1, 150)
        killed = False
        for line in writer.stdout:  # to the end: what it said before it died counts
            message = json.loads(line)
            if "begin" in message:
                operation = message
                continue
            assert operation is not None
            state, operation = applied(state, operation), None
            acknowledged += 1
            if acknowledged >= last and not killed:
                time.sleep(chance.random() * 0.005)  # somewhere in the writes that follow
                writer.kill()
                killed = True
    assert writer.returncode == -signal.SIGKILL
    return state, state if operation is None else applied(state, operation)


def stored(index: EmbeddedIndex) -> State:
    ids = [f"id-{n}" for n in range(200)]
    items = index.get("photos", ids)
    for item in items:
        value = item.attributes["value"]
        assert isinstance(value, int)
        np.testing.assert_array_equal(item.vector, vector(value))
    assert index.count("photos") == len(items)
    [neighbors] = index.search("photos", vector(0)[None], 1000)
    assert sorted(neighbor.id for neighbor in neighbors) == sorted(item.id for item in items)
    return {item.id: int(item.attributes["value"]) for item in items}


def test_kill_loses_no_acknowledged_write(tmp_path: Path) -> None:
    state: State = {}
    for seed in range(ROUNDS):
        acknowledged, with_pending = run_and_kill(tmp_path, seed, state)
        index = EmbeddedIndex(tmp_path, max_segment_rows=SEGMENT_ROWS)
        state = stored(index)
        index.close()
        assert state in (acknowledged, with_pending)
        assert state


def test_a_second_writer_is_refused_with_the_owners_pid(tmp_path: Path) -> None:
    with start_writer(tmp_path, 0, "hold") as owner:
        assert owner.stdout is not None
        assert json.loads(owner.stdout.readline()) == {"open": True}
        for _ in range(2):
            with pytest.raises(IndexLocked, match=f"pid {owner.pid} on ") as caught:
                EmbeddedIndex(tmp_path)
            assert str(tmp_path) in str(caught.value)
        owner.kill()
    # Its pid still stands in the file; only the kernel's lock counts.
    assert (tmp_path / "lock").read_text().split()[0] == str(owner.pid)
    EmbeddedIndex(tmp_path).close()


def test_a_second_index_of_this_process_is_refused(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path)
    with pytest.raises(IndexLocked, match=f"pid {os.getpid()} on "):
        EmbeddedIndex(tmp_path)
    index.close()
    EmbeddedIndex(tmp_path).close()


def test_a_pid_left_behind_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1 elsewhere\n")
    EmbeddedIndex(tmp_path).close()
    assert (tmp_path / "lock").read_text() == ""


def test_a_lock_is_released_while_a_child_has_its_descriptor(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    descriptor = os.dup(lock._descriptor or 0)  # as a fork would
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()
    os.close(descriptor)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    EmbeddedIndex(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b" / "lock").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "index"):
        with pytest.raises(IndexUnusable, match="can't hold a retrieval index: ") as caught:
            EmbeddedIndex(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(IndexUnusable, match="Permission denied"):
        EmbeddedIndex(tmp_path)
    tmp_path.chmod(0o700)
