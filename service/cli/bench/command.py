"""`fovea bench`: its options, and the run that they ask for."""

import asyncio
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from service.cli.bench.methods import METHODS, PRIORITIES
from service.cli.bench.payload import Size
from service.cli.bench.target import ForbiddenTarget, check_target
from service.cli.bench.traffic import ARRIVALS
from service.cli.connection import address_option
from service.cli.output_paths import check_writable

F = TypeVar("F", bound=Callable[..., object])


class _Positive(click.FloatRange):
    """A number above 0 that is finite."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):  # nan is inside every range, as Click compares
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


def _size(_: click.Context, __: click.Parameter, value: str | None) -> Size | None:
    if value is None:
        return None
    height, _x, width = value.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.BadParameter(f"{value!r} is no size; expected HEIGHTxWIDTH in pixels, as 224x224")
    return Size(int(height), int(width))


def _cores(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    if not value:
        return ()
    usable, cores = os.sched_getaffinity(0), set[int]()
    for part in value.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise click.BadParameter(f"{value!r} names no cores; expected numbers and ranges, as 0 or 0-3,8")
        if int(last or first) > max(usable):
            raise click.BadParameter(
                f"{value!r} names core {last or first}; this command may use {_listed(usable)}"
            )
        cores |= set(range(int(first), int(last or first) + 1))
    if not cores <= usable:
        raise click.BadParameter(
            f"{value!r} names cores {_listed(cores - usable)}; this command may use {_listed(usable)}"
        )
    return tuple(sorted(cores))


def _listed(cores: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


def _writable(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        check_writable(value)
    return value


_LOAD = (
    click.option(
        "--callers", type=click.IntRange(1, 100_000), metavar="N",
        help="Closed loop: so many callers, each calling again when it is answered. On streams each "
        "caller has a stream of its own.",
    ),
    click.option(
        "--rate", type=_Positive(), metavar="CALLS/S",
        help="Open loop: so many calls a second by a schedule, whatever the server does.",
    ),
    click.option(
        "--arrivals", type=click.Choice(ARRIVALS), default="poisson", show_default=True,
        help="The open loop's schedule. poisson: at random. constant: evenly spaced. bursty: at random in "
        "bursts, nothing between them; --rate is the mean. ramp: from --rate to --ramp-to.",
    ),
    click.option(
        "--burst-on-s", type=_Positive(), default=1.0, show_default=True, metavar="SECONDS",
        help="How long a burst is.",
    ),
    click.option(
        "--burst-off-s", type=_Positive(), default=1.0, show_default=True, metavar="SECONDS",
        help="How long nothing comes after it.",
    ),
    click.option("--ramp-to", type=_Positive(), metavar="CALLS/S", help="The rate at the ramp's end."),
)  # fmt: skip
_CALLS = (
    click.option(
        "--method", type=click.Choice(tuple(METHODS)), default="classify", show_default=True,
        help="What to call. upsert and upsert-vectors write items named fovea-bench-0, … into the "
        "collection; delete removes them.",
    ),
    click.option(
        "--images", multiple=True, type=click.Path(exists=True, path_type=Path), metavar="FOLDER|FILE",
        help="Images to send, in turn; may be given several times.",
    ),
    click.argument(
        "more_images", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[IMAGE]..."
    ),
    click.option(
        "--raw", callback=_size, metavar="HxW",
        help="Send uint8 RGB pixels of this size, made from the images, instead of their files.",
    ),
    click.option(
        "--images-per-request", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="N",
        help="Images, vectors or ids in one message.",
    ),
    click.option("--model", default="", metavar="NAME", help="Default: the server's default model."),
    click.option("--version", default="", metavar="VERSION", help="Default: the loaded one."),
    click.option(
        "--top-k", type=click.IntRange(0, 100_000), default=0, metavar="N",
        help="Classes or neighbours in a reply. Default: the server's.",
    ),
    click.option("--collection", default="", metavar="NAME", help="What retrieval methods work on."),
    click.option(
        "--priority", type=click.Choice(tuple(PRIORITIES)), default="interactive", show_default=True,
        help="Of classify and embed.",
    ),
    click.option(
        "--deadline-ms", type=_Positive(), metavar="MILLISECONDS",
        help="After it callers give up, and answers are late. Default: none.",
    ),
    click.option(
        "--never-cancel", is_flag=True,
        help="Keep the deadline from the server: it never learns that a caller has given up.",
    ),
)  # fmt: skip
_RUN = (
    click.option(
        "--duration-s", type=_Positive(), default=10.0, show_default=True, metavar="SECONDS",
        help="Measured time, of each round.",
    ),
    click.option(
        "--warm-up-s", type=click.FloatRange(0, 3600), default=2.0, show_default=True, metavar="SECONDS",
        help="Load before it, of each round, that isn't counted.",
    ),
    click.option(
        "--rounds", type=click.IntRange(1, 1000), metavar="N", help="Default: 3 with --compare, else 1."
    ),
    click.option(
        "--connections", type=click.IntRange(1, 1024), metavar="N",
        help="Default: one for each 64 callers, 8 in an open loop.",
    ),
    click.option(
        "--stream-window", type=click.IntRange(1, 10_000), default=16, show_default=True, metavar="N",
        help="Closed loop: messages that each stream has under way.",
    ),
    click.option(
        "--max-in-flight", type=click.IntRange(1, 100_000), default=2000, show_default=True, metavar="N",
        help="Open loop: calls under way at most; what is due beyond is counted as not sent.",
    ),
    click.option(
        "--patience-s", type=_Positive(), default=30.0, show_default=True, metavar="SECONDS",
        help="How long a call without a deadline, or with --never-cancel, is waited for.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
        help="Of the schedule and of random vectors: the same seed, the same load.",
    ),
    click.option(
        "--compare", type=click.Choice(("floor",)),
        help="In turns with the server, run the same decoding and the same session in one process without "
        "a server, and print the ratio first. Needs --model-repository.",
    ),
    click.option(
        "--model-repository", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER",
        help="Where the floor finds the served model's package.",
    ),
    click.option(
        "--floor-cores", callback=_cores, default="", metavar="CORES",
        help="Pin the floor to these cores, as 0 or 0-3: those of the server. Its threads are as many. "
        "Default: all that this command may use.",
    ),
    click.option(
        "--floor-batch-size", type=click.IntRange(1, 10_000), metavar="N",
        help="Default: the server's max_batch_size, or the images under way where they are fewer.",
    ),
    click.option(
        "--uvloop/--no-uvloop", default=True, show_default=True, help="Use uvloop where it is installed."
    ),
)  # fmt: skip
_OUTPUT = (
    click.option(
        "--output", type=click.Path(dir_okay=False, path_type=Path), callback=_writable, metavar="FILE.json",
        help="Write the numbers, the parameters and the machine.",
    ),
    click.option(
        "--plot", type=click.Path(dir_okay=False, path_type=Path), callback=_writable, metavar="FILE.png",
        help="Write a picture: latencies by percentile, calls over time.",
    ),
    address_option,
    click.option("--allow-remote", is_flag=True, help="Put a server on another machine under load, too."),
)  # fmt: skip


def _options(function: F) -> F:
    for option in reversed((*_LOAD, *_CALLS, *_RUN, *_OUTPUT)):
        function = option(function)
    return function


@click.command(context_settings={"max_content_width": 100})
@_options
def bench(**options: Any) -> None:
    """Put a server under load and measure it.

    \b
    fovea bench --callers 16 --images photos/
    fovea bench --rate 200 --deadline-ms 250 --images photos/ --plot run.png --output run.json
    fovea bench --callers 16 --images photos/ --compare floor --model-repository models/

    GOODPUT counts the answers inside the deadline. Latency counts from when a call was due, also when
    the generator was late.
    """
    _check(options)
    # Late, so that the other commands load none of it, and work where it isn't installed.
    try:
        import hdrh.histogram  # noqa: F401 - asked for here, used by recorder.py
        import matplotlib  # noqa: F401 - asked for here, used by plot.py
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the load generator needs {error.name}, which isn't installed; "
            "pip install 'fovea-serving[bench]' brings it"
        ) from error
    if options["compare"] and importlib.util.find_spec("onnxruntime") is None:
        raise click.ClickException(
            "--compare floor needs onnxruntime, which isn't installed; "
            "pip install 'fovea-serving[serve,bench]' brings it"
        )
    from service.cli.bench.floor_process import FloorFailed
    from service.cli.bench.pictures import NoPictures
    from service.cli.bench.preflight import NotServed
    from service.cli.bench.run import Plan, run

    plan = Plan(**{name: value for name, value in options.items() if name in Plan.__dataclass_fields__})
    try:
        with asyncio.Runner(loop_factory=_loop_factory(use_uvloop=options["uvloop"])) as runner:
            result = runner.run(run(plan))
    except (NotServed, NoPictures, FloorFailed, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _write(result, options)
    if not result.whole.answered:
        problem = (
            "no call was answered"
            if result.whole.offered
            else "no call was due, or ended, in the measured time; raise --duration-s or --rate"
        )
        click.secho(f"Error: {problem}", fg="red", err=True)
        sys.exit(1)


def _check(options: dict[str, Any]) -> None:
    """What Click can't check of one option alone; brings the images together."""
    if (options["callers"] is None) == (options["rate"] is None):
        raise click.UsageError(
            "say what load: either --callers N (closed loop) or --rate CALLS/S (open loop)"
        )
    if options["rate"] is None and options["arrivals"] != "poisson":
        raise click.UsageError(f"--arrivals {options['arrivals']} is for an open loop; give --rate")
    if (options["arrivals"] == "ramp") != (options["ramp_to"] is not None):
        raise click.UsageError("a ramp needs both --arrivals ramp and --ramp-to CALLS/S")
    if options["never_cancel"] and options["deadline_ms"] is None:
        raise click.UsageError(
            "--never-cancel needs --deadline-ms: the deadline that callers keep to themselves"
        )
    method = METHODS[options["method"]]
    options["images"] = (*options["images"], *options.pop("more_images"))
    if method.carries == "pictures" and not options["images"]:
        raise click.UsageError(f"--method {method.name} sends images; name them with --images FOLDER")
    if method.carries != "pictures" and (options["images"] or options["raw"]):
        raise click.UsageError(f"--method {method.name} sends no images; leave --images and --raw out")
    if method.in_collection and not options["collection"]:
        raise click.UsageError(
            f"--method {method.name} works on a collection; name it with --collection "
            "(fovea index list prints those there are)"
        )
    if options["compare"] and options["model_repository"] is None:
        raise click.UsageError("--compare floor needs --model-repository, where the served package lies")
    if options["compare"] and (method.carries != "pictures" or method.in_collection):
        raise click.UsageError(f"--compare floor is for classify and embed; --method is {method.name}")
    try:
        check_target(options["address"], allow_remote=options["allow_remote"])
    except ForbiddenTarget as error:
        raise click.ClickException(str(error)) from error


def _loop_factory(*, use_uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not use_uvloop:
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _write(result: Any, options: dict[str, Any]) -> None:
    from rich.console import Console

    from service.cli.bench.report import print_report

    # Wide enough for every row: figures that are cut are none.
    print_report(result, Console(highlight=False, soft_wrap=True, width=max(Console().width, 120)))
    try:
        if options["output"] is not None:
            text = json.dumps(result.document(), indent=2, ensure_ascii=False)
            options["output"].write_text(text + "\n", encoding="utf-8")
        if options["plot"] is not None:
            from service.cli.bench.plot import write_plot

            write_plot(result, options["plot"])
    except OSError as error:
        raise click.ClickException(f"{error.filename} can't be written: {error.strerror or error}") from error
