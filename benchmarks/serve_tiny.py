"""What the front end costs: a model that takes no time, raw 32 × 32 × 3 tensors (3,072 bytes) in.

    python -m benchmarks.serve_tiny

Server on one core, client on another, in turns with a bare `grpc.aio` echo (asyncio's own loop) of the same
bytes. The client sends the same ready-made bytes again and again and parses nothing. Options that this script
doesn't know go to `fovea serve`.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import image_pb2

from benchmarks import echo_server, raw_load
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
from benchmarks.pinned import pinned_module, pinned_server
from benchmarks.raw_load import Rate
from benchmarks.tiny_model import SIDE, write_tiny

CALLERS = 64
BATCH = 64
BATCH_CALLERS = 8
# Two messages a run: a model this small costs less than the way to its thread and back.
MAX_BATCH_SIZE = 2 * BATCH
STREAMS, OUTSTANDING = 4, 64
UNARY_RATIO_BAR, BATCH_BAR, STREAM_BAR = 0.55, 40_000, 12_000
_UNARY = "/fovea.v1.ClassificationService/Classify"
_STREAM = "/fovea.v1.ClassificationService/ClassifyStream"


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--round-s", type=float, default=2.5)
    options, server_options = parser.parse_known_args()
    server_core, client_core = cores()
    one, many = _request(1), _request(BATCH)
    messages = {
        combine: pb.ClassifyStreamRequest(id=1, request=one, combine_replies=combine).SerializeToString()
        for combine in (True, False)
    }
    single, batch = one.SerializeToString(), many.SerializeToString()
    seconds: float = options.round_s

    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        write_tiny(repository)
        with (
            pinned_server(
                repository, "--max-batch-size", str(MAX_BATCH_SIZE), "--execution-provider", "cpu",
                *server_options, core=server_core,
            ) as server,
            pinned_module("benchmarks.echo_server", core=server_core) as echo,
            pinned_module("benchmarks.echo_server", "--io", "uvloop", core=server_core) as echo_uvloop,
        ):  # fmt: skip
            os.sched_setaffinity(0, {client_core})
            sizes = {
                body: _checked(raw_load.one_call(server.address, _UNARY, body), images)
                for body, images in ((single, 1), (batch, BATCH))
            }
            reply = pb.ClassifyStreamResponse.FromString(
                raw_load.one_message(server.address, _STREAM, messages[True])
            )
            _checked(reply.response.SerializeToString(), 1)
            answers_in = _combined(reply)
            echo_method = echo_server.method("Unary")
            ways: dict[str, Callable[[], Rate]] = {
                "echo": lambda: raw_load.unary(
                    echo, echo_method, single, len(single), callers=CALLERS, seconds=seconds
                ),
                "unary": lambda: raw_load.unary(
                    server, _UNARY, single, sizes[single], callers=CALLERS, seconds=seconds
                ),
                "echo with uvloop": lambda: raw_load.unary(
                    echo_uvloop, echo_method, single, len(single), callers=CALLERS, seconds=seconds
                ),
                "64-image messages": lambda: raw_load.unary(
                    server, _UNARY, batch, sizes[batch], callers=BATCH_CALLERS, seconds=seconds
                ),
                "stream messages": lambda: raw_load.stream(
                    server, _STREAM, messages[True], answers_in,
                    streams=STREAMS, outstanding=OUTSTANDING, seconds=seconds,
                ),
                "answered one by one": lambda: raw_load.stream(
                    server, _STREAM, messages[False], raw_load.one_of(reply.ByteSize()),
                    streams=STREAMS, outstanding=OUTSTANDING, seconds=seconds,
                ),
            }  # fmt: skip
            rounds = [_round(number, ways) for number in range(options.rounds)]

    medians = {way: statistics.median(each[way].per_s for each in rounds) for way in ways}
    ratio = statistics.median(each["unary"].per_s / each["echo"].per_s for each in rounds)
    to_uvloop = statistics.median(each["unary"].per_s / each["echo with uvloop"].per_s for each in rounds)
    print(f"unary: {ratio:.3f} of the bare grpc.aio echo, {to_uvloop:.3f} of the same echo with uvloop")
    for way in ways:
        if statistics.median(each[way].client_limited for each in rounds):
            print(f"{way}: the client was the limit; the server could have done more")
    print(
        f"{CALLERS} callers (unary), {BATCH_CALLERS} callers (64-image messages), {STREAMS} streams of "
        f"{OUTSTANDING} unanswered messages; max_batch_size {MAX_BATCH_SIZE}; {describe()}"
    )
    print(f"figure: serve_tiny_stream_one_by_one_per_s {medians['answered one by one']:.0f}")
    print(f"figure: serve_tiny_unary_per_s {medians['unary']:.0f}")
    conclude(
        Figure("serve_tiny_unary_ratio", ratio, UNARY_RATIO_BAR),
        Figure("serve_tiny_batch64_images_per_s", BATCH * medians["64-image messages"], BATCH_BAR),
        Figure("serve_tiny_stream_images_per_s", medians["stream messages"], STREAM_BAR),
    )


def _request(images: int) -> pb.ClassifyRequest:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8).tobytes()
    raw = image_pb2.RawImage(data=pixels, height=SIDE, width=SIDE)
    return pb.ClassifyRequest(images=[image_pb2.Image(raw=raw)] * images)


def _checked(reply: bytes, images: int) -> int:
    """The size in bytes of a right answer."""
    results = pb.ClassifyResponse.FromString(reply).results
    if len(results) != images or any(len(result.classification.classes) != 5 for result in results):
        raise SystemExit(f"expected {images} results of 5 classes: {results}")
    return len(reply)


def _combined(answer: pb.ClassifyStreamResponse) -> raw_load.Answers:
    """Replies of any number of answers like that one, each checked by its size."""
    size = answer.ByteSize()

    def answers(reply: bytes) -> int:
        following = pb.ClassifyStreamResponse.FromString(reply).following
        if any(each.ByteSize() != size for each in following):
            raise SystemExit(f"answers of other sizes than {size} bytes: {following}")
        return 1 + len(following)

    return answers


def _round(number: int, ways: dict[str, Callable[[], Rate]]) -> dict[str, Rate]:
    rates = {way: measure() for way, measure in ways.items()}
    print(
        f"round {number + 1}: "
        + ", ".join(f"{way} {rate.per_s:,.0f}/s (busy {rate.busy:.0%})" for way, rate in rates.items()),
        flush=True,
    )
    return rates


if __name__ == "__main__":
    main()
