"""Batching policies on the same arrivals, in virtual time: who answers how many before they leave?

    python -m benchmarks.simulate_batching

Fovea's own classes against the policies of Triton, Mosec and text-embeddings-inference, with the same runs,
callers and queue length; Poisson and bursty arrivals at 50 to 300% of what full batches would answer. It
measures policies, not servers: decoding, copying and refusing cost nothing. Seeded: each run prints the same.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from benchmarks.figures import Figure, conclude
from benchmarks.simulation.others import greedy, mosec_like, triton_like
from benchmarks.simulation.ours import fovea
from benchmarks.simulation.scenario import CPU, GPU, Machine, Outcome, Request, bursty, poisson

LOADS = (0.5, 0.8, 1.0, 1.5, 3.0)
Policy = Callable[[Machine, Sequence[Request], int], Outcome]
POLICIES: dict[str, Policy] = {
    "Fovea": fovea,
    "Triton-like": triton_like,
    "Mosec-like": mosec_like,
    "greedy (TEI-like)": greedy,
}
ARRIVALS = {"Poisson": poisson, "bursty": bursty}
OURS, OTHERS = "Fovea", ("Triton-like", "Mosec-like", "greedy (TEI-like)")
KEEPS_BAR = 0.95
# At capacity a greedy policy does as well where callers are patient; beyond it none does.
AGAINST_BEST_BARS = {1.0: 0.98, 1.5: 1.2, 3.0: 1.5}
PLOT = Path(__file__).parent / "plots" / "simulate_batching.png"
_COLOURS = dict(zip(POLICIES, ("#0072b2", "#76b900", "#d55e00", "#444444"), strict=True))
# Triton's and the greedy policy all but coincide: the one is seen beside the other.
_WIDTHS = dict(zip(POLICIES, (2.5, 4.5, 1.3, 1.3), strict=True))

# (machine's name, arrivals, policy) → an outcome per load
Results = dict[tuple[str, str, str], list[Outcome]]


def main() -> None:
    """Simulate, print, draw, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the plot goes (default: %(default)s)")
    options = parser.parse_args()
    began = time.perf_counter()
    results: Results = {}
    for machine in (CPU, GPU):
        for arrivals, arrive in ARRIVALS.items():
            for load in LOADS:
                requests = arrive(machine, load, options.seed)
                for name, policy in POLICIES.items():
                    outcome = policy(machine, requests, options.seed)
                    results.setdefault((machine.name, arrivals, name), []).append(outcome)
            _print_table(machine, arrivals, results)
    draw(results, options.plot)
    print(f"plot: {options.plot}; {time.perf_counter() - began:.0f} s")
    conclude(*figures(results))


def goodput(machine: Machine, outcome: Outcome) -> float:
    """Answers before their caller left, as a share of what full batches would answer."""
    return len(outcome.answered_s) / (machine.capacity_per_s() * machine.seconds)


def figures(results: Results) -> list[Figure]:
    """Goodput kept beyond capacity, and against the best other where that holds the least."""
    found = []
    steady = [goodput(CPU, outcome) for outcome in results[CPU.name, "Poisson", OURS]]
    for load in (1.5, 3.0):
        kept = steady[LOADS.index(load)] / steady[LOADS.index(1.0)]
        found.append(Figure(f"simulated_goodput_{load:.0%}".replace("%", "_percent"), kept, KEEPS_BAR))
    for load, bar in AGAINST_BEST_BARS.items():
        ratio = min(
            _against_best(machine, arrivals, load, results) for machine in (CPU, GPU) for arrivals in ARRIVALS
        )
        name = f"simulated_against_best_other_{load:.0%}".replace("%", "_percent")
        found.append(Figure(name, ratio, bar))
    return found


def _against_best(machine: Machine, arrivals: str, load: float, results: Results) -> float:
    at = LOADS.index(load)
    best = max(goodput(machine, results[machine.name, arrivals, name][at]) for name in OTHERS)
    ours = goodput(machine, results[machine.name, arrivals, OURS][at])
    return ours / best if best else math.inf


def _print_table(machine: Machine, arrivals: str, results: Results) -> None:
    print(f"\n{machine.name}, {arrivals} arrivals, {machine.capacity_per_s():.0f} images/s with full batches")
    print(f"{'':20}" + "".join(f"{load:>24.0%}" for load in LOADS))
    print(f"{'goodput, p99 (wasted)':20}")
    for name in POLICIES:
        cells = ""
        for outcome in results[machine.name, arrivals, name]:
            wasted = outcome.wasted / outcome.offered
            cells += f"{goodput(machine, outcome):9.3f} {1000 * outcome.p99_s():5.0f} ms {wasted:5.0%}  "
        print(f"{name:20}{cells}")


def draw(results: Results, path: Path) -> None:
    """Goodput on the left, p99 of the answered on the right; a machine per row."""
    drawing = Drawing(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(2, 2)
    percent = [100 * load for load in LOADS]
    for row, machine in zip(axes, (CPU, GPU), strict=True):
        for arrivals, style in (("Poisson", "-o"), ("bursty", "--s")):
            for name, colour in _COLOURS.items():
                outcomes = results[machine.name, arrivals, name]
                label = f"{name}, {arrivals}"
                for axis, values in (
                    (row[0], [goodput(machine, outcome) for outcome in outcomes]),
                    (row[1], [1000 * outcome.p99_s() for outcome in outcomes]),
                ):
                    axis.plot(
                        percent,
                        values,
                        style,
                        color=colour,
                        linewidth=_WIDTHS[name],
                        markersize=4,
                        label=label,
                    )
        row[0].set_title(f"{machine.name}: goodput")
        row[0].set_ylabel("answers in time ÷ capacity")
        row[0].set_ylim(0, 1.05)
        patience = " to ".join(f"{1000 * seconds:.0f}" for seconds in dict.fromkeys(machine.patience_s))
        row[1].set_title(f"p99 of the answered; callers leave after {patience} ms")
        row[1].set_ylabel("ms")
        row[1].set_ylim(bottom=0)
        for axis in row:
            axis.set_xlabel("offered load, % of capacity")
            axis.set_xticks(percent)
            axis.grid(alpha=0.3)
    drawing.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
