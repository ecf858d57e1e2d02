"""Builds, starts and drains the server: the one place that knows everyone."""

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog
from fovea.v1 import (
    classification_pb2,
    classification_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from service.arrivals import Arrivals
from service.config import Config
from service.errors import ConfigError, Overloaded
from service.gallery.building import drop_left_overs
from service.gallery.gallery import Gallery
from service.health import Health
from service.http2.limits import Limits
from service.http2.server import Http2Server
from service.interceptors import RequestInterceptor, deadline_in, status_of
from service.loop_lag import watch_loop_lag
from service.metrics import Metrics, MetricsServer
from service.pipeline import Pipeline
from service.repository import ModelRepository
from service.retrieval.open import open_index
from service.servicers.classification import ClassificationServicer
from service.servicers.embedding import EmbeddingServicer
from service.servicers.messages import name_model
from service.servicers.models import ModelServicer
from service.servicers.retrieval import RetrievalServicer

T = TypeVar("T")
log = structlog.get_logger()
# make, timeout and shells pass one signal on twice; only a later one is a second one.
_SAME_SIGNAL_S = 1.0
# How long threads may take to end after the drain.
_CLOSE_TIMEOUT_S = 2.0
_SERVICES = (
    classification_pb2.DESCRIPTOR.services_by_name["ClassificationService"].full_name,
    embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name,
    models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)

# They take images for a model and nothing else.
_INFERENCE_METHODS = {
    f"/{service}/{method}" for service, method in zip(_SERVICES[:2], ("Classify", "Embed"), strict=True)
}


class Server:
    """One server, from start to stop; `run` is its whole life.

    Attributes:
        address: host:port of gRPC, once started.
        metrics_address: host:port of /metrics, once started.
    """

    def __init__(self, config: Config) -> None:
        """Open the index and look at the model repository; nothing listens yet.

        Raises:
            StartError: says what can't be used.
        """
        self._metrics = Metrics()
        self._repository = ModelRepository(config, self._metrics)
        self._config = config
        self._index = open_index(config)
        try:
            drop_left_overs(self._index, shared=config.index_engine != "embedded")
            decode_threads = self._repository.threads.decode_threads
            self._pipeline = Pipeline(
                config, decode_threads, self._metrics, lambda error: status_of(error).name
            )
            self._gallery = Gallery(self._index, self._pipeline, self._repository, config, self._metrics)
        except BaseException:
            self._index.close()
            raise
        self._health = Health(self._repository.names)
        self._stopping, self._hurrying, self._draining = (asyncio.Event() for _ in range(3))
        self._stopping_since = 0.0
        self._batchers: list[asyncio.Task[None]] = []
        self._lame_duck_s = config.lame_duck_s
        self.address = ""
        self.metrics_address = ""

    async def run(self) -> bool:
        """Start, load, serve until SIGTERM or SIGINT, drain, stop.

        Returns:
            Whether every thread has ended; one that is deep in a decoder or a model can't be stopped.

        Raises:
            StartError: a port can't be listened on, or a model can't be loaded.
        """
        self._listen_to_signals()
        drained = True
        try:
            await self._start()
            try:
                await self._unless(self._stopping, self._load())
                await self._serve()
            finally:
                drained = await self._drain()
        finally:
            written = self._gallery.close()
        return drained and written

    # Start.

    async def _start(self) -> None:
        config = self._config
        self._metrics_server = _listening(
            "metrics_port",
            config.host,
            config.metrics_port,
            lambda: MetricsServer(self._metrics.registry, config.host, config.metrics_port),
        )
        self.metrics_address = f"{config.address_host}:{self._metrics_server.port}"
        arrivals = Arrivals(config.max_arriving_bytes, config.max_message_bytes, config.max_waiting_calls)
        interceptor = RequestInterceptor(
            self._metrics, self._refuse_early, arrivals, config.default_timeout_ms / 1000
        )
        self._grpc = Http2Server(_limits(config), interceptor.wrap)
        self._register()
        self._health.register(self._grpc)
        try:
            port = _listening(
                "port",
                config.host,
                config.port,
                lambda: self._grpc.add_insecure_port(f"{config.address_host}:{config.port}"),
            )
        except ConfigError:
            self._metrics_server.stop()
            raise
        self.address = f"{config.address_host}:{port}"
        await self._grpc.start()
        self._lag = asyncio.create_task(watch_loop_lag(self._metrics.event_loop_lag.observe))
        self._repository.threads.log()
        log.info(
            "listening",
            address=self.address,
            metrics=f"http://{self.metrics_address}/metrics",
            models=self._repository.names,
            # Not the URL, which may have a password.
            index=str(config.index_path) if config.index_engine == "embedded" else config.index_engine,
        )
        if not self._repository.default_name:
            log.warning(
                "no_default_model",
                models=self._repository.names,
                advice="requests that name no model are refused; --default-model gives them one",
            )

    def _refuse_early(self, method: str, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Before the body is read: what even one image more would be refused for.

        Raises:
            Overloaded: only where it is plain which model the call is for.
        """
        model = self._repository.sole
        if model is not None and method in _INFERENCE_METHODS:
            try:
                self._pipeline.refuse_early(
                    model, deadline_in(context.time_remaining(), model.default_timeout_ms / 1000)
                )
            except Overloaded:
                name_model(model)
                raise

    def _register(self) -> None:
        config = self._config
        server: Any = self._grpc  # generated code's types know gRPC's own servers only
        classification_pb2_grpc.add_ClassificationServiceServicer_to_server(
            ClassificationServicer(self._repository, self._pipeline, config, self._draining), server
        )
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            EmbeddingServicer(self._repository, self._pipeline, config, self._draining), server
        )
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self._repository), server)
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(
            RetrievalServicer(self._gallery, config, self._draining), server
        )
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(_SERVICES), server
        )

    async def _load(self) -> None:
        for name in self._repository.names:
            model, batcher = await self._repository.load(name)
            self._batchers.append(batcher)
            self._health.model_ready(name)
            log.info(
                "model_loaded",
                model=name,
                version=model.manifest.version,
                architecture=model.manifest.architecture,
                execution_provider=model.execution_provider,
                precision=model.precision,
                devices=model.devices,
                instances=model.instances,
                batch_sizes=model.batch_sizes,
                load_s=round(model.load_s, 3),
            )
        # What is there now stays: the collector needn't look through it again and again.
        gc.collect()
        gc.freeze()
        self._health.ready()
        log.info("ready", address=self.address)

    async def _serve(self) -> None:
        """Until a signal, or until a batcher has died, which can only be a fault of its own."""
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stop, *self._batchers], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for batcher in self._batchers:
            if batcher.done():
                batcher.result()

    # Stop.

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        now = time.monotonic()
        if not self._stopping.is_set():
            self._stopping_since = now
        elif now - self._stopping_since >= _SAME_SIGNAL_S:  # somebody is in a hurry
            self._hurrying.set()
        if number == signal.SIGINT:
            self._lame_duck_s = 0.0
        self._stopping.set()

    @staticmethod
    async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, or leave it when the event comes."""
        task = asyncio.create_task(work)
        interruption = asyncio.create_task(event.wait())
        await asyncio.wait([task, interruption], return_when=asyncio.FIRST_COMPLETED)
        interruption.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _drain(self) -> bool:
        """NOT_SERVING → lame duck → refuse new, finish old → batchers → threads → metrics."""
        started = time.perf_counter()
        self._health.draining()
        if self._stopping.is_set():
            # Where nobody has ever looked, nobody will see NOT_SERVING either.
            lame_duck_s = self._lame_duck_s if self._health.asked else 0.0
            log.info("draining", lame_duck_s=lame_duck_s, timeout_s=self._config.drain_timeout_s)
            await self._unless(self._hurrying, asyncio.sleep(lame_duck_s))
        self._draining.set()
        self._health.close()
        await self._unless(self._hurrying, self._grpc.stop(self._config.drain_timeout_s))
        await self._grpc.stop(None)  # ends at once what is left; nothing is, unless there was a hurry
        models_ended = await self._repository.close(_CLOSE_TIMEOUT_S)
        decoders_ended = self._pipeline.close(_CLOSE_TIMEOUT_S)
        self._lag.cancel()
        self._metrics_server.stop()
        ended = models_ended and decoders_ended
        log.info("stopped", drain_s=round(time.perf_counter() - started, 3), threads_ended=ended)
        return ended


def _limits(config: Config) -> Limits:
    return Limits(
        message_bytes=config.max_message_bytes,
        concurrent_calls=config.max_concurrent_streams,
        age_s=config.max_connection_age_s,
        grace_s=config.drain_timeout_s,
    )


def _listening(setting: str, host: str, port: int, listen: Callable[[], T]) -> T:
    try:
        return listen()
    except OSError as error:
        raise ConfigError(
            f"{setting} is {port}, which can't be listened on at host {host}: {error.strerror or error}; is "
            "another server there, or one that is still finishing its calls?"
        ) from error


def serve(config: Config) -> bool:
    """Run a server until it is told to stop; see `Server.run`."""
    # Short turns, so that decoding and inference threads give the lock back to the event loop soon.
    sys.setswitchinterval(0.0005)
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: Config) -> bool:
    return await Server(config).run()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: a call costs less on it (benchmarks/front_end.py)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
