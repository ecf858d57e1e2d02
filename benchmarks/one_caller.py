"""One caller at a time: what the way to the model and back adds to the work itself.

    python -m benchmarks.one_caller

ResNet-50 int8 by OpenVINO, one JPEG a call, against decoding + session at batch 1 in one process. Server and
floor on one core, the client on another; in turns.
"""

import os
import statistics

from benchmarks import loads, resnet50
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
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

    async def measure() -> list[tuple[Recording, Latencies]]:
        async with running_floor(setup) as floor:
            pairs = []
            for number in range(rounds):
                without = (await floor.measure(seconds, 1, overlap=False)).batches
                served = await loads.closed(server, workload, 1, seconds, warm_up_s=0.5)
                pairs.append((served, without))
                print(
                    f"round {number + 1}: p50 {_p50(served.latencies):.2f} ms served, "
                    f"{_p50(without):.2f} ms without"
                )
            return pairs

    with resnet50.served(package, options.execution_provider, options.precision, core=server_core) as server:
        os.sched_setaffinity(0, {client_core})
        pairs = loads.run(measure())

    ratio = statistics.median(_p50(served.latencies) / _p50(without) for served, without in pairs)
    served, without = merged(served for served, _ in pairs), Latencies()
    for _, each in pairs:
        without.add(each)
    print(
        f"ratio {ratio:.3f}: p50 {_p50(served.latencies):.2f} ms served, "
        f"{_p50(without):.2f} ms without a server"
    )
    print(
        f"p99 {served.latencies.percentiles_ms(99.0)[0]:.2f} and {without.percentiles_ms(99.0)[0]:.2f} ms; "
        f"{served.answered} calls"
    )
    print(f"{package.describe()}\n{options.execution_provider} {options.precision}, one core; {describe()}")
    conclude(Figure("one_caller_p50_ratio", ratio, BAR, at_most=True), quick=options.quick)


def _p50(latencies: Latencies) -> float:
    found = latencies.percentiles_ms(50.0)[0]
    if found is None:
        raise SystemExit("not measured: nothing was answered in a round; give it more --round-s")
    return found


if __name__ == "__main__":
    main()
