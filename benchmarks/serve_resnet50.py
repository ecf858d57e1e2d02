"""ResNet-50 behind gRPC, JPEG in, int8 by OpenVINO: against its own floor, and against ONNX Runtime's CPU.

    python -m benchmarks.serve_resnet50

The floor is the same decoding and the same session without a server. Server and floor on one core, the client
on another; 16 callers in a closed loop, one JPEG a call, batches of 8 for all; in turns, so that a noisy
neighbour hits all sides, and who isn't measured is stopped. The agreement of each precision with fp32 is the
package's own record. The lag of the OpenVINO server's event loop under that load is from its own metrics.
"""

import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks import loads, resnet50
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
from benchmarks.pinned import PinnedProcess
from service.cli.bench.floor_process import running_floor
from service.cli.bench.workload import Workload
from service.providers import missing

BATCH_SIZE, CALLERS = 8, 16
FLOOR_BAR, CPU_INT8_BAR, CPU_FP32_BAR = 0.92, 2.0, 5.0
OPENVINO, CPU_INT8, CPU_FP32 = ("openvino", "int8"), ("cpu", "int8"), ("cpu", "fp32")
FLOOR = ("floor", "int8")
LAG_MS_BAR = 5.0
_LAG = "fovea_event_loop_lag_seconds"
_WAKING_S = 0.2
_ENGINES = (OPENVINO, CPU_INT8, CPU_FP32)


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = resnet50.options(__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--round-s", type=float, default=8.0)
    options = parser.parse_args()
    if lacking := missing("openvino"):
        raise SystemExit(f"not measured: {lacking}")
    rounds, seconds = (1, 4.0) if options.quick else (options.rounds, options.round_s)
    package, photos = resnet50.find(options)
    server_core, client_core = cores()
    setup = loads.floor_of(
        package, photos, provider="openvino", precision="int8", batch_size=BATCH_SIZE, cores=[server_core]
    )
    workload = loads.photo_messages(photos)

    async def measure() -> list[dict[tuple[str, str], float]]:
        for server in servers.values():
            with server.awake():
                pass  # stopped from now on
        async with running_floor(setup) as floor:
            found = []
            for number in range(rounds):
                without = await floor.measure(seconds, BATCH_SIZE, overlap=False)
                each = {FLOOR: without.images_per_s}
                for engine, server in servers.items():
                    with server.awake():
                        before = _woken(server)
                        each[engine] = await _served(server, workload, seconds)
                        if engine == OPENVINO:
                            lags.update(server.buckets(_LAG))
                            lags.subtract(before)
                found.append(each)
                print(f"round {number + 1}: " + ", ".join(f"{_name(k)} {v:.1f}/s" for k, v in each.items()))
            return found

    lags: Counter[float] = Counter()
    with ExitStack() as stack:
        servers = {
            engine: stack.enter_context(
                resnet50.served(package, *engine, "--max-batch-size", str(BATCH_SIZE), core=server_core)
            )
            for engine in _ENGINES
        }  # fmt: skip
        os.sched_setaffinity(0, {client_core})
        found = loads.run(measure())

    def ratio(to: tuple[str, str]) -> float:
        return statistics.median(each[OPENVINO] / each[to] for each in found)

    medians = {side: statistics.median(each[side] for each in found) for side in found[0]}
    print(f"ratio {ratio(FLOOR):.3f}: {medians[OPENVINO]:.1f} images/s served, {medians[FLOOR]:.1f} without")
    print(", ".join(f"{_name(side)} {value:.1f} images/s" for side, value in medians.items()) + " (medians)")
    lag_ms = 1000 * percentile(lags, 0.99)
    print(
        f"event loop of {_name(OPENVINO)}: p99 of its lag at most {lag_ms:g} ms, "
        f"{lags[math.inf]:.0f} observations"
    )
    print(package.describe())
    print(f"batches of {BATCH_SIZE}, {CALLERS} callers, one core; {describe()}")
    conclude(
        Figure("serve_resnet50_ratio", ratio(FLOOR), FLOOR_BAR),
        Figure("serve_resnet50_over_cpu_int8", ratio(CPU_INT8), CPU_INT8_BAR),
        Figure("serve_resnet50_over_cpu_fp32", ratio(CPU_FP32), CPU_FP32_BAR),
        Figure("serve_resnet50_loop_lag_p99_ms", lag_ms, LAG_MS_BAR, at_most=True),
        quick=options.quick,
    )


def percentile(buckets: Mapping[float, float], share: float) -> float:
    """The least bound that so many observations don't exceed; not a number where there are none.

    Args:
        buckets: upper bound → observations up to it, the last bound infinite.
        share: 0 to 1.
    """
    total = max(buckets.values(), default=0)
    reached = (bound for bound, count in sorted(buckets.items()) if total and count >= share * total)
    return next(reached, math.nan)


def _woken(server: PinnedProcess) -> dict[float, float]:
    """The lags so far, once the server has counted its being stopped as the long stall that it was."""
    seen = server.buckets(_LAG)[math.inf]
    while server.buckets(_LAG)[math.inf] == seen:
        time.sleep(_WAKING_S)
    time.sleep(_WAKING_S)
    return server.buckets(_LAG)


async def _served(server: PinnedProcess, workload: Workload, seconds: float) -> float:
    deadline_ms = loads.CLIENT_DEADLINE_MS
    return loads.rate(await loads.closed(server, workload, CALLERS, seconds, deadline_ms=deadline_ms))


def _name(side: tuple[str, str]) -> str:
    return " ".join(side)


if __name__ == "__main__":
    main()
