"""One caller at a time: what the way to the model and back adds to the work itself.

    python -m benchmarks.one_caller

ResNet-50 int8 by OpenVINO, one JPEG a call, against decoding + session at batch 1 in one process. Server and
floor on one core, the client on another; in turns. The cores are kept from sleeping where that can be done:
between the calls of one caller they would. A bare `grpc.aio` handler has its turns too (bare_server.py): what
it takes beyond the floor is gRPC's, the client's and the machine's, and a little for ranking.
"""

import os
import statistics
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks import loads, resnet50
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, cores_kept_awake, describe
from benchmarks.pinned import PinnedProcess, pinned_module
from service.cli.bench.floor_process import running_floor
from service.cli.bench.recorder import Latencies, Recording, merged

BAR = 1.1


def main() -> None:
    """Measure, print, exit by the bar."""
    parser = resnet50.options(__doc__, engine=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--round-s", type=float, default=4.0)
    options = parser.parse_args()
    rounds, seconds = (2, 1.0) if options.quick else (options.rounds, options.round_s)
    package, photos = resnet50.find(options)
    server_core, client_core = cores()
    setup = loads.floor_of(
        package, photos, provider=options.execution_provider, precision=options.precision, batch_size=1,
        cores=[server_core],
    )  # fmt: skip
    workload = loads.photo_messages(photos)

    async def served(server: PinnedProcess) -> Recording:
        with server.awake():
            return await loads.closed(
                server, workload, 1, seconds, warm_up_s=0.5, deadline_ms=loads.CLIENT_DEADLINE_MS
            )

    async def measure(server: PinnedProcess, bare: PinnedProcess) -> list[_Round]:
        async with running_floor(setup) as floor:
            found = []
            for number in range(rounds):
                without = (await floor.measure(seconds, 1, overlap=False)).batches
                found.append(_Round(without, await served(server), (await served(bare)).latencies))
                print(f"round {number + 1}: p50 {found[-1]}")
            return found

    with ExitStack() as stack:
        engine = options.execution_provider, options.precision
        server = stack.enter_context(resnet50.served(package, *engine, core=server_core))
        bare = stack.enter_context(
            pinned_module(
                "benchmarks.bare_server", str(package.folder),
                "--execution-provider", engine[0], "--precision", engine[1], core=server_core,
            )
        )  # fmt: skip
        os.sched_setaffinity(0, {client_core})
        for each in (server, bare):
            with each.awake():
                pass  # stopped from now on
        awake = stack.enter_context(cores_kept_awake())
        found = loads.run(measure(server, bare))

    calls, without = merged(each.served for each in found), Latencies()
    for one in found:
        without.add(one.without)
    ratio = statistics.median(_p50(each.served.latencies) / _p50(each.without) for each in found)
    bare_ratio = statistics.median(_p50(each.bare) / _p50(each.without) for each in found)
    print(
        f"ratio {ratio:.3f}: p50 {_p50(calls.latencies):.2f} ms served, "
        f"{_p50(without):.2f} ms without a server; {bare_ratio:.3f} by a bare handler"
    )
    print(
        f"p99 {calls.latencies.percentiles_ms(99.0)[0]:.2f} and {without.percentiles_ms(99.0)[0]:.2f} ms; "
        f"{calls.answered} calls"
    )
    print(f"{package.describe()}\n{' '.join(engine)}, one core, {awake}; {describe()}")
    conclude(
        Figure("one_caller_bare_p50_ratio", bare_ratio),
        Figure("one_caller_p50_ratio", ratio, BAR, at_most=True),
        quick=options.quick,
    )


class _Round(NamedTuple):
    without: Latencies
    served: Recording
    bare: Latencies

    def __str__(self) -> str:
        without, served, bare = map(_p50, (self.without, self.served.latencies, self.bare))
        return f"{served:.2f} ms served, {bare:.2f} ms by a bare handler, {without:.2f} ms without"


def _p50(latencies: Latencies) -> float:
    found = latencies.percentiles_ms(50.0)[0]
    if found is None:
        raise SystemExit("not measured: nothing was answered in a round; give it more --round-s")
    return found


if __name__ == "__main__":
    main()
