"""The processor that this process may use: its cores and its instruction sets."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")

# What runs bf16 in hardware, and what multiplies 8-bit integers without saturating 16-bit sums.
BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16"})
INT8_INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


def available_cores(cgroup: Path = _CGROUP, proc: Path = _PROC) -> int:
    """Cores that this process may use: its CPU affinity, and its cgroups' quota rounded up."""
    cores = len(os.sched_getaffinity(0))
    quotas = [*_quotas_v2(cgroup, proc), *_quota_v1(cgroup)]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def instruction_sets(proc: Path = _PROC) -> frozenset[str]:
    """The processor's flags as Linux names them; empty where it doesn't say."""
    try:
        lines = (proc / "cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return frozenset()


def _quotas_v2(cgroup: Path, proc: Path) -> list[float]:
    """Of the process's own cgroup and of each above it: any of them may be the tightest."""
    try:
        entries = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        entries = []
    own = next((entry[3:].strip("/") for entry in entries if entry.startswith("0::")), "")
    folders = [cgroup, *(cgroup.joinpath(*own.split("/")[:depth]) for depth in range(1, own.count("/") + 2))]
    quotas = []
    for folder in folders:
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        except (OSError, ValueError):
            continue
    return quotas


def _quota_v1(cgroup: Path) -> list[float]:
    try:
        quota = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return []
    return [quota / period] if quota > 0 and period > 0 else []
