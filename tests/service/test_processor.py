"""Cores and instruction sets, read from files as Linux writes them."""

import os
from pathlib import Path

import pytest

from service.processor import available_cores, instruction_sets


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"cgroup/cpu.max": "max 100000\n"}, 16),
        ({"cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"cgroup/cpu.max": "1000 100000\n"}, 1),
        ({"cgroup/cpu.max": "6400000 100000\n"}, 16),
        ({"cgroup/cpu.max": "nonsense"}, 16),
        # The process's own cgroup, and one above it, as systemd and nested containers have them.
        ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/b/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "500000 100000"}, 5),
        ({"cgroup/cpu/cpu.cfs_quota_us": "150000", "cgroup/cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cgroup/cpu/cpu.cfs_quota_us": "-1", "cgroup/cpu/cpu.cfs_period_us": "100000"}, 16),
    ],
)
def test_the_tightest_quota_counts(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert available_cores(tmp_path / "cgroup", tmp_path / "proc") == cores


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert available_cores(tmp_path, tmp_path) == 2


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor : 0\nflags\t\t: fpu amx_bf16\n\nprocessor : 1\n", {"fpu", "amx_bf16"}),
        ("processor : 0\nFeatures\t: fp asimd asimddp\n", {"fp", "asimd", "asimddp"}),
        ("processor : 0\n", set()),
    ],
)  # fmt: skip
def test_instruction_sets(tmp_path: Path, text: str, flags: set[str]) -> None:
    write(tmp_path / "cpuinfo", text)
    assert instruction_sets(tmp_path) == flags


def test_no_cpuinfo_is_no_instruction_set(tmp_path: Path) -> None:
    assert instruction_sets(tmp_path) == frozenset()
