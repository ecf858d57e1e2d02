"""The floor: the same decoding and the same session in one process, one thread, without a server.

Run as a child of a benchmark: reads a number of seconds per line on stdin, works that long, and answers with
images per second on stdout.
"""

import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from service.image import decode_picture
from service.manifest import read_manifest
from service.model_settings import ModelSettings
from service.preprocess import Preprocessing, preprocess
from service.session import open_sessions


def main() -> None:
    """Take orders until stdin ends. Arguments: package folder, batch size, files."""
    package, batch_size, *names = sys.argv[1:]
    size = int(batch_size)
    files = cycle([Path(name).read_bytes() for name in names])
    manifest = read_manifest(Path(package))
    spec = Preprocessing(
        manifest.resize_short_side, manifest.input_height, manifest.input_width, manifest.interpolation
    )
    settings = ModelSettings(execution_provider="cpu", intra_op_threads=1, max_batch_size=size)
    session = open_sessions(manifest, settings)[0]
    session.warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        images, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < float(line):
            batch = [preprocess(decode_picture(data), spec) for data in islice(files, size)]
            session.run(np.stack(batch))
            images += size
        print(images / elapsed, flush=True)


if __name__ == "__main__":
    main()
