"""What a figure was measured on."""

import os

from service.cli.bench.machine import machine_line


def describe() -> str:
    """One line: processor, cores, Python and the libraries that do the work."""
    return machine_line()


def cores() -> tuple[int, int]:
    """Two different cores: one for what is measured, one for its client.

    Raises:
        SystemExit: this process may use only one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("this benchmark needs two cores: one for the server, one for its client")
    return allowed[0], allowed[1]
