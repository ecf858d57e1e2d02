"""The floor's process, and what it measured."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.cli.bench.payload import Size
from service.cli.bench.recorder import Latencies
from service.cli.bench.workload import MAX_TOTAL_BYTES

_START_TIMEOUT_S = 600.0  # a GPU's engines may have to be built
_ANSWER_TIMEOUT_S = 60.0  # beyond the time that was ordered
_STOP_TIMEOUT_S = 10.0
_MAX_LINE_BYTES = 64 * 1024 * 1024


class FloorFailed(Exception):
    """The floor couldn't be measured; says why."""


@dataclass(frozen=True)
class FloorSetup:
    """What the floor runs, which should be what the server runs.

    Attributes:
        package: <repository>/<model>/<version>.
        execution_provider, precision: as the service's settings name them.
        max_batch_size: the largest that will be ordered.
        threads: of one run, and of decoding where it overlaps with runs.
        files: image files.
        raw: send raw pixels of that size instead of files.
        cores: what the process is pinned to; empty: to none.
    """

    package: Path
    execution_provider: str
    precision: str
    max_batch_size: int
    threads: int
    files: Sequence[Path]
    raw: Size | None = None
    cores: Sequence[int] = ()


@dataclass(frozen=True)
class FloorRound:
    """One measurement.

    Attributes:
        images_per_s: decoded and run.
        batches: how long each batch took, decoding included.
    """

    images_per_s: float
    batches: Latencies = field(default_factory=Latencies)


class FloorProcess:
    """A running floor.

    Attributes:
        fingerprint: of the package and precision that it runs.
        execution_provider, precision: what really runs.
    """

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._process = process
        self.fingerprint: str = ready["fingerprint"]
        self.execution_provider: str = ready["execution_provider"]
        self.precision: str = ready["precision"]

    async def measure(self, seconds: float, batch_size: int, *, overlap: bool) -> FloorRound:
        """Let it work; see `floor.Floor.work`.

        Raises:
            FloorFailed: it ended.
        """
        order = {"seconds": seconds, "batch_size": batch_size, "overlap": overlap}
        done = await _ask(self._process, order, seconds + _ANSWER_TIMEOUT_S)
        result = FloorRound(done["images"] / done["elapsed_s"])
        for batch_s in done["batch_s"]:
            result.batches.record(batch_s)
        return result


@asynccontextmanager
async def running_floor(setup: FloorSetup) -> AsyncIterator[FloorProcess]:
    """Start the floor, load and warm its model; end it afterwards.

    Raises:
        FloorFailed: it can't run.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.cli.bench.floor",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
    )
    try:
        order = {
            "package": str(setup.package),
            "execution_provider": setup.execution_provider,
            "precision": setup.precision,
            "max_batch_size": setup.max_batch_size,
            "threads": setup.threads,
            "files": [str(file) for file in setup.files],
            "raw": [setup.raw.height, setup.raw.width] if setup.raw else None,
            "cores": list(setup.cores),
            "max_total_bytes": MAX_TOTAL_BYTES,
        }
        yield FloorProcess(process, await _ask(process, order, _START_TIMEOUT_S))
    finally:
        await _stop(process)


async def _ask(
    process: asyncio.subprocess.Process, order: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    assert process.stdin is not None  # noqa: S101 - they are pipes
    assert process.stdout is not None  # noqa: S101 - they are pipes
    try:
        async with asyncio.timeout(timeout_s):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
    except TimeoutError:
        raise FloorFailed(f"the floor's process didn't answer within {timeout_s:g} s") from None
    except OSError:
        line = b""
    if not line:
        raise FloorFailed("the floor's process ended; what it wrote stands above")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise FloorFailed(f"the floor can't run: {answer['error']}")
    return answer


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()  # it ends when there is no more to read
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
