"""A run's result as a table."""

from typing import Any

from rich.console import Console
from rich.table import Table

from service.cli.bench.recorder import KINDS
from service.cli.bench.result import Result

_RATES = {
    "answered/s": "throughput",
    "goodput/s": "goodput",
    "images/s": "images_per_s",
    "offered/s": "offered_rate",
}
_LATENCIES = {
    "answered": "latency_ms",
    "accepted, with those given up": "accepted_latency_ms",
    "refusals": "refusal_latency_ms",
}
_LAGS = {"calls sent late by": "send_lag_ms", "the generator's own lag": "loop_lag_ms"}


def print_report(result: Result, console: Console) -> None:
    """Print what was measured: the ratio to the floor first, where there is one."""
    document = result.document()
    if result.floor is not None:
        console.print(_ratio(document), style="bold")
    console.print(
        f"{result.parameters['method']} at {result.parameters['address']}: {result.parameters['load']}"
    )
    if result.server:
        console.print("  ".join(f"{name} {value}" for name, value in result.server.items()))
    console.print(_counts(document))
    console.print(_latencies(document))
    for code, count in document["errors_by_code"].items():
        console.print(
            f"{count} × {code}: {document['error_examples'].get(code, '')}", style="red", markup=False
        )
    for warning in document["warnings"]:
        console.print(f"Warning: {warning}", style="yellow", markup=False)


def _ratio(document: dict[str, Any]) -> str:
    floor = document["floor"]
    return (
        f"ratio {document['ratio']:.3f}: {document['images_per_s']:.1f} images/s served, "
        f"{floor['images_per_s']:.1f} without a server (in one process, batches of {floor['batch_size']}, "
        f"{floor['threads']} threads, p50 {floor['batch_ms']['p50']:.2f} ms a batch)"
    )


def _counts(document: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (*_RATES, *(kind.replace("_", " ") for kind in KINDS)):
        table.add_column(name, justify="right", no_wrap=True)
    rates = [f"{document[key]:.1f}" for key in _RATES.values()]
    table.add_row(*rates, *(str(document[kind]) for kind in KINDS))
    return table


def _latencies(document: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("latency, ms", no_wrap=True)
    for name in ("p50", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, values in (
        *((name, document[key]) for name, key in _LATENCIES.items()),
        *((name, document["generator"][key]) for name, key in _LAGS.items()),
    ):
        if values["p50"] is not None:
            table.add_row(name, *(f"{values[key]:.2f}" for key in ("p50", "p90", "p99", "p999", "max")))
    return table
