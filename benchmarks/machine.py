"""What a figure was measured on."""

import contextlib
import os
from collections.abc import Iterator

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


@contextlib.contextmanager
def cores_kept_awake() -> Iterator[str]:
    """Keep every core from sleeping meanwhile, as cyclictest does; gives words that say whether that worked.

    A caller who waits for milliseconds lets its core sleep, and on a virtual machine waking it takes longer
    than all the rest of a call. Linux polls instead while somebody holds this file open (its PM QoS).
    """
    try:
        file = os.open("/dev/cpu_dma_latency", os.O_WRONLY)
    except OSError as error:
        yield f"cores that sleep between calls (/dev/cpu_dma_latency: {error.strerror})"
        return
    try:
        os.write(file, bytes(4))  # 0 µs, as a 32-bit number
        yield "cores kept awake (/dev/cpu_dma_latency)"
    finally:
        os.close(file)
