"""One run from its plan to its result: look at the server, make the messages, load it, round by round."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.cli.bench import workload as workloads
from service.cli.bench.floor_process import FloorFailed, FloorProcess, FloorRound, FloorSetup, running_floor
from service.cli.bench.machine import describe_machine
from service.cli.bench.methods import METHODS, Fields, Method
from service.cli.bench.payload import Size
from service.cli.bench.pictures import find_files, read_pictures
from service.cli.bench.preflight import (
    NotServed,
    ServedCollection,
    ServedModel,
    ask_for_collection,
    ask_for_model,
)
from service.cli.bench.recorder import Recording
from service.cli.bench.result import Comparison, Result
from service.cli.bench.runner import Terms, closed_loop, open_loop
from service.cli.bench.traffic import Traffic
from service.cli.bench.wire import Wire
from service.cli.bench.workload import Workload
from service.processor import available_cores

_CALLERS_PER_CONNECTION = 64
_OPEN_LOOP_CONNECTIONS = 8
_MOST_CONNECTIONS = 1024


@dataclass(frozen=True)
class Plan:
    """What to run; each field is the option of the same name of `fovea bench`."""

    address: str
    method: str = "classify"
    callers: int | None = None
    rate: float | None = None
    arrivals: str = "poisson"
    burst_on_s: float = 1.0
    burst_off_s: float = 1.0
    ramp_to: float | None = None
    images: tuple[Path, ...] = ()
    raw: Size | None = None
    images_per_request: int = 1
    model: str = ""
    version: str = ""
    top_k: int = 0
    collection: str = ""
    priority: str = "interactive"
    deadline_ms: float | None = None
    never_cancel: bool = False
    duration_s: float = 10.0
    warm_up_s: float = 2.0
    rounds: int | None = None
    connections: int | None = None
    stream_window: int = 16
    max_in_flight: int = 2000
    patience_s: float = 30.0
    seed: int = 0
    compare: str | None = None
    model_repository: Path | None = None
    floor_cores: tuple[int, ...] = ()
    floor_batch_size: int | None = None

    @property
    def terms(self) -> Terms:
        """How its callers behave."""
        return Terms(
            duration_s=self.duration_s,
            warm_up_s=self.warm_up_s,
            deadline_s=None if self.deadline_ms is None else self.deadline_ms / 1000,
            never_cancel=self.never_cancel,
            patience_s=self.patience_s,
            max_in_flight=self.max_in_flight,
        )

    @property
    def round_count(self) -> int:
        """The rounds, the default resolved."""
        return self.rounds or (3 if self.compare else 1)

    @property
    def connection_count(self) -> int:
        """The connections, the default resolved."""
        if self.callers is None:
            return self.connections or _OPEN_LOOP_CONNECTIONS
        return self.connections or min(-(-self.callers // _CALLERS_PER_CONNECTION), _MOST_CONNECTIONS)

    def traffic(self) -> Traffic | None:
        """The open loop's schedule; None of a closed loop.

        Raises:
            ValueError: a value can't be used.
        """
        if self.rate is None:
            return None
        return Traffic(
            self.arrivals,
            self.rate,
            burst_on_s=self.burst_on_s,
            burst_off_s=self.burst_off_s,
            ramp_to_per_s=self.ramp_to or 0.0,
            ramp_from_s=self.warm_up_s,
            ramp_s=self.duration_s,
        )

    def load(self) -> str:
        """The load in words."""
        traffic = self.traffic()
        if traffic is None and METHODS[self.method].streams:
            return f"{self.callers} streams with {self.stream_window} messages under way, in a closed loop"
        if traffic is None:
            return f"{self.callers} callers in a closed loop"
        more = {
            "bursty": f" calls/s in bursts of {self.burst_on_s:g} s every "
            f"{self.burst_on_s + self.burst_off_s:g} s",
            "ramp": f" to {self.ramp_to or 0:g} calls/s",
        }.get(self.arrivals, " calls/s")
        return f"{self.arrivals} arrivals, {self.rate:g}{more}"


async def run(plan: Plan) -> Result:
    """Do it.

    Raises:
        NotServed: the server isn't there, or hasn't what the plan needs.
        NoPictures: the images can't be read.
        FloorFailed: the floor can't be compared with.
        ValueError: a value of the plan can't be used.
    """
    plan.traffic()
    method = METHODS[plan.method]
    model = None
    if method.carries == "pictures" and not method.in_collection:
        model = await ask_for_model(plan.address, plan.model, plan.version)
    collection = await ask_for_collection(plan.address, plan.collection) if method.in_collection else None
    workload = _workload(plan, method, collection)
    served: list[Recording] = []
    floors: list[FloorRound] = []
    async with AsyncExitStack() as stack:
        floor = None
        if plan.compare and model is not None:
            setup = _floor_setup(plan, model)
            floor = await stack.enter_async_context(running_floor(setup))
            _check_same(floor, model)
        for number in range(plan.round_count):
            if floor is not None:
                assert model is not None  # noqa: S101 - else there is no floor
                floors.append(await _floor_round(floor, plan, model))
            served.append(await load_once(plan, workload, seed=plan.seed + number))
    comparison = None
    if model is not None and floors:
        comparison = Comparison(floors, _floor_batch_size(plan, model), _floor_threads(plan))
    return Result(
        served, max(workload.per_message, 1), _parameters(plan, workload), describe_machine(),
        _served(model, collection), comparison,
    )  # fmt: skip


async def load_once(plan: Plan, workload: Workload, seed: int = 0) -> Recording:
    """One round of load."""
    method, per_message, traffic = workload.method, workload.per_message, plan.traffic()
    # A stream for each caller of a closed loop; each of its messages under way counts as a caller.
    streams = (plan.callers or 0) if method.streams else 0
    wire = Wire(plan.address, method, per_message, connections=plan.connection_count, lanes=streams)
    async with wire:
        if traffic is None:
            callers = (plan.callers or 1) * (plan.stream_window if method.streams else 1)
            return await closed_loop(wire, workload, plan.terms, callers)
        times = traffic.times(plan.warm_up_s + plan.duration_s, seed)
        return await open_loop(wire, workload, plan.terms, times)


def _workload(plan: Plan, method: Method, collection: ServedCollection | None) -> Workload:
    fields = Fields(plan.model, plan.version, plan.top_k, plan.collection, priority=plan.priority)
    if method.carries == "pictures":
        if collection is not None and not collection.has_model:
            raise NotServed(
                f"collection {collection.name!r} takes no images: its vectors come from its callers or from "
                f"a model that isn't loaded; use --method {method.name}-vectors"
            )
        pictures = read_pictures(find_files(plan.images), plan.raw, workloads.MAX_TOTAL_BYTES)
        return workloads.of_pictures(method, fields, pictures, plan.images_per_request)
    if method.carries == "vectors":
        assert collection is not None  # noqa: S101 - what carries vectors works on one
        fields = replace(fields, fingerprint=collection.fingerprint)
        return workloads.of_vectors(method, fields, collection.dimension, plan.images_per_request, plan.seed)
    if method.carries == "ids":
        return workloads.of_ids(method, fields, plan.images_per_request)
    return workloads.of_nothing(method, fields)


# The floor.


def _floor_setup(plan: Plan, model: ServedModel) -> FloorSetup:
    assert plan.model_repository is not None  # noqa: S101 - the command asks for it
    package = plan.model_repository / model.name / model.version
    if not package.is_dir():
        raise FloorFailed(
            f"{plan.model_repository} has no {model.name}/{model.version}, which is what the server runs; "
            "--model-repository has to be the server's own"
        )
    batch_size = _floor_batch_size(plan, model)
    return FloorSetup(
        package, model.execution_provider, model.precision, batch_size, _floor_threads(plan),
        [file.resolve() for file in find_files(plan.images)], plan.raw, plan.floor_cores,
    )  # fmt: skip


def _floor_batch_size(plan: Plan, model: ServedModel) -> int:
    if plan.floor_batch_size:
        return plan.floor_batch_size
    if plan.callers is None:
        return model.max_batch_size
    window = plan.stream_window if METHODS[plan.method].streams else 1
    return min(model.max_batch_size, plan.callers * window * plan.images_per_request)


def _floor_threads(plan: Plan) -> int:
    return len(plan.floor_cores) or available_cores()


def _check_same(floor: FloorProcess, model: ServedModel) -> None:
    if floor.fingerprint != model.fingerprint:
        raise FloorFailed(
            f"{model.name}/{model.version} in --model-repository is another package than the server's: its "
            f"fingerprint is {floor.fingerprint}, the server's {model.fingerprint}"
        )


async def _floor_round(floor: FloorProcess, plan: Plan, model: ServedModel) -> FloorRound:
    # One caller's image is decoded before it runs; of several, one is decoded while another runs.
    alone = plan.callers == 1 and not METHODS[plan.method].streams
    overlap = _floor_threads(plan) > 1 and not alone
    return await floor.measure(plan.duration_s, _floor_batch_size(plan, model), overlap=overlap)


# What the result says about the run.


def _parameters(plan: Plan, workload: Workload) -> dict[str, Any]:
    values = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    return {
        **{name: _plain(value) for name, value in values.items()},
        "load": plan.load(),
        "connections": plan.connection_count,
        "rounds": plan.round_count,
        "messages": len(workload.messages),
        "average_message_bytes": round(workload.average_bytes),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path | Size) else value


def _served(model: ServedModel | None, collection: ServedCollection | None) -> dict[str, Any]:
    if model is not None:
        return {
            "model": model.name,
            "version": model.version,
            "execution_provider": model.execution_provider,
            "precision": model.precision,
            "max_batch_size": model.max_batch_size,
        }
    if collection is None:
        return {}
    return {"collection": collection.name, "dimension": collection.dimension, "items": collection.count}
