"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    """One line: processor, cores, Python and the libraries that do the work."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("onnxruntime-gpu", "grpcio", "pillow", "numpy")
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}"


def cores() -> tuple[int, int]:
    """Two different cores: one for what is measured, one for its client.

    Raises:
        SystemExit: this process may use only one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("this benchmark needs two cores: one for the server, one for its client")
    return allowed[0], allowed[1]
