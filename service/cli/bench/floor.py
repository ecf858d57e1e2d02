"""The floor: the same decoding and the same session in one process, without a server.

A program of its own, started by `floor_process.py`, so that it has its own interpreter lock and its own
cores. It reads one JSON object per line on stdin and answers each with one on stdout: first what to load,
then how long to work.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.cli.bench.payload import Payload, RawPixels, Size
from service.cli.bench.pictures import read_pictures
from service.errors import FoveaError
from service.image import RawImage, decode_picture, from_raw
from service.manifest import Manifest, read_manifest
from service.model_settings import ModelSettings
from service.preprocess import Preprocessing, preprocess
from service.session import ModelSession, open_sessions

Batch = NDArray[np.uint8]


class Floor:
    """A loaded model and pictures for it.

    Attributes:
        execution_provider, precision: what really runs it.
        fingerprint: of its package and precision.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        """Load.

        Args:
            order: `package` (folder), `execution_provider`, `precision`, `max_batch_size`, `threads`,
                `files`, `raw` (None or [height, width]), `max_total_bytes`.

        Raises:
            FoveaError: the package or the execution provider can't be used.
            ValueError: a file can't be.
        """
        manifest = read_manifest(Path(order["package"]))
        self._threads = int(order["threads"])
        self._session = _session(manifest, order, self._threads)
        self.execution_provider, self.precision = self._session.execution_provider, self._session.precision
        self.fingerprint = manifest.fingerprint(self.precision)
        raw = Size(*order["raw"]) if order["raw"] else None
        files = [Path(name) for name in order["files"]]
        self._prepare = _preparer(manifest)
        self._pictures = cycle(read_pictures(files, raw, int(order["max_total_bytes"])))
        self._pool = ThreadPoolExecutor(self._threads)

    def work(self, seconds: float, batch_size: int, *, overlap: bool) -> dict[str, Any]:
        """Decode and run batches.

        Args:
            seconds: how long; the last batch is finished.
            batch_size: images in each.
            overlap: decode the next batch in `threads` threads while one runs, as a server with several
                cores does; else one after the other in this thread.

        Returns:
            `images`, `elapsed_s`, and `batch_s`: of each batch, how long it took.
        """
        batch_s: list[float] = []
        batches = self._decoded_ahead(batch_size) if overlap else self._decoded(batch_size)
        started = before = time.perf_counter()
        for batch in batches:
            self._session.run(batch)
            now = time.perf_counter()
            batch_s.append(now - before)
            before = now
            if now - started >= seconds:
                break
        return {"images": len(batch_s) * batch_size, "elapsed_s": before - started, "batch_s": batch_s}

    def _decoded(self, batch_size: int) -> Iterator[Batch]:
        while True:
            yield np.stack([self._prepare(picture) for picture in islice(self._pictures, batch_size)])

    def _decoded_ahead(self, batch_size: int) -> Iterator[Batch]:
        def begin() -> "Sequence[Future[Batch]]":
            return [self._pool.submit(self._prepare, each) for each in islice(self._pictures, batch_size)]

        ahead = begin()
        while True:
            batch = np.stack([image.result() for image in ahead])
            ahead = begin()
            yield batch


def _session(manifest: Manifest, order: dict[str, Any], threads: int) -> ModelSession:
    settings = ModelSettings(
        execution_provider=order["execution_provider"],
        precision=order["precision"],
        intra_op_threads=threads,
        max_batch_size=int(order["max_batch_size"]),
    )
    session = open_sessions(manifest, settings)[0]
    session.warm_up()
    return session


def _preparer(manifest: Manifest) -> Callable[[Payload], Batch]:
    """What the server does to an image before the batch; see service/pipeline.py."""
    spec = Preprocessing.of(manifest)

    def prepare(picture: Payload) -> Batch:
        if isinstance(picture, RawPixels):
            pixels = from_raw(RawImage(picture.data, picture.size.height, picture.size.width))
            if pixels.shape[:2] == (manifest.input_height, manifest.input_width):
                return pixels
            return preprocess(pixels, spec)
        return preprocess(decode_picture(picture, least_short_side=spec.least_short_side), spec)

    return prepare


def main() -> None:
    """Take orders until stdin ends."""
    # What libraries and logs print goes to stderr: stdout has nothing but answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    order = json.loads(sys.stdin.readline())
    if order["cores"]:
        os.sched_setaffinity(0, order["cores"])
    try:
        floor = Floor(order)
    except (FoveaError, ValueError) as error:
        answer({"error": str(error)})
        return
    answer({
        "execution_provider": floor.execution_provider,
        "precision": floor.precision,
        "fingerprint": floor.fingerprint,
    })  # fmt: skip
    for line in sys.stdin:
        work = json.loads(line)
        answer(floor.work(work["seconds"], work["batch_size"], overlap=work["overlap"]))


if __name__ == "__main__":
    # Ctrl-C reaches every process of the terminal; what started this one says that it was aborted.
    with contextlib.suppress(KeyboardInterrupt):
        main()
