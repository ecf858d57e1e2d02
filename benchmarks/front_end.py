"""The ways into a Python gRPC server, each as a bare echo, and what large messages cost in memory.

    python -m benchmarks.front_end              # every way, 3 kB and 108 kB, unary and stream
    python -m benchmarks.front_end --memory     # 400 callers with 4 MiB each against `fovea serve`

Server on one core, client on another; each round goes through all ways, so that a noisy neighbour hits all of
them. Beside the rate stands what a message costs the server's core in microseconds.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from fovea.v1 import classification_pb2 as pb
from fovea.v1 import image_pb2

from benchmarks import burst, echo_server, raw_load
from benchmarks.figures import conclude
from benchmarks.machine import cores, describe
from benchmarks.pinned import PinnedProcess, pinned_module, pinned_server
from benchmarks.raw_load import Rate
from benchmarks.tiny_model import write_tiny

CALLERS = 32
STREAMS, OUTSTANDING = 4, 32
SIZES_BYTES = (3_072, 108_000)
# Server's options, and the methods to try there.
UNARY_WAYS = {
    ("asyncio", "none"): ("Unary", "ReadByHand"),
    ("uvloop", "none"): ("Unary", "Typed", "Metadata", "ReadByHand", "ReadByIterator"),
    ("uvloop", "rewrap"): ("Unary",),
    ("uvloop", "cached"): ("Unary",),
    ("threads", "none"): ("Unary",),
    ("http2", "none"): ("Unary", "Typed", "ReadByHand"),
}
STREAM_WAYS = {
    ("asyncio", "none"): ("StreamIterateYield", "StreamReadWrite"),
    ("uvloop", "none"): ("StreamIterateYield", "StreamIterateWrite", "StreamReadWrite"),
    ("threads", "none"): ("StreamIterateYield",),
    ("http2", "none"): ("StreamIterateYield", "StreamReadWrite"),
}


def main() -> None:
    """Measure and print; with --memory, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-s", type=float, default=1.0)
    parser.add_argument("--memory", action="store_true", help="the memory of large messages instead")
    options = parser.parse_args()
    if options.memory:
        _memory()
    else:
        _ways(options.rounds, options.round_s)


def _ways(rounds: int, seconds: float) -> None:
    server_core, client_core = cores()
    with contextlib.ExitStack() as stack:
        servers = {
            kind: stack.enter_context(
                pinned_module(
                    "benchmarks.echo_server", "--io", kind[0], "--interceptor", kind[1], core=server_core
                )
            )
            for kind in UNARY_WAYS
        }
        os.sched_setaffinity(0, {client_core})
        for size in SIZES_BYTES:
            body = _message(size)
            tries: dict[str, Callable[[], Rate]] = {}
            for kind, names in UNARY_WAYS.items():
                for name in names:
                    tries[_label(kind, name)] = _unary(servers[kind], name, body, seconds)
            for kind, names in STREAM_WAYS.items():
                for name in names:
                    tries[_label(kind, name)] = _stream(servers[kind], name, body, seconds)
            _print_table(size, [{way: measure() for way, measure in tries.items()} for _ in range(rounds)])
    print(f"{CALLERS} callers; {STREAMS} streams of {OUTSTANDING} unanswered messages; {describe()}")


def _message(size: int) -> bytes:
    """A request of about that size, so that the typed method has something to parse."""
    image = image_pb2.Image(encoded=bytes(size))
    return pb.ClassifyRequest(images=[image]).SerializeToString()


def _label(kind: tuple[str, str], name: str) -> str:
    io, interceptor = kind
    return f"{io} {name}" + ("" if interceptor == "none" else f", {interceptor} interceptor")


def _unary(server: PinnedProcess, name: str, body: bytes, seconds: float) -> Callable[[], Rate]:
    method = echo_server.method(name)
    return lambda: raw_load.unary(server, method, body, len(body), callers=CALLERS, seconds=seconds)


def _stream(server: PinnedProcess, name: str, body: bytes, seconds: float) -> Callable[[], Rate]:
    method = echo_server.method(name)
    return lambda: raw_load.stream(
        server,
        method,
        body,
        raw_load.one_of(len(body)),
        streams=STREAMS,
        outstanding=OUTSTANDING,
        seconds=seconds,
    )


def _print_table(size: int, rounds: list[dict[str, Rate]]) -> None:
    print(f"\n{size:,} bytes: messages/s, server µs per message, ratio to the plain grpc.aio echo")
    for way in rounds[0]:
        rates = [each[way] for each in rounds]
        per_s = statistics.median(rate.per_s for rate in rates)
        cost_us = statistics.median(1e6 * rate.busy / rate.per_s for rate in rates)
        ratio = statistics.median(each[way].per_s / each["asyncio Unary"].per_s for each in rounds)
        waits = ", the client was the limit" if statistics.median(r.client_limited for r in rates) else ""
        print(f"  {way:38s} {per_s:8,.0f}/s {cost_us:7.1f} µs {ratio:6.2f}{waits}", flush=True)


def _memory() -> None:
    server_core, client_core = cores()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder))
        options = ("--execution-provider", "cpu")
        with pinned_server(Path(folder), *options, core=server_core) as server:
            os.sched_setaffinity(0, {client_core})
            outcomes, figures = burst.measure(server)
    print(f"{outcomes}; {describe()}")
    conclude(*figures)


if __name__ == "__main__":
    main()
