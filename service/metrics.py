"""Every metric of the server, on a registry that is handed in."""

from bisect import bisect_left
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1,
    0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
SHED_REASONS = ("full", "predicted_late", "expired", "dropped_late", "cancelled")
_LAG_SECONDS = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075,
    0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
_CONNECTION_TIMEOUT_S = 10.0
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class CountedHistogram(Histogram):
    """A histogram that takes many equal observations at the cost of one."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """As the library's, which looks at the buckets one by one; of numbers, and without exemplars."""
        assert exemplar is None  # noqa: S101 - nobody gives one
        self.observe_many(amount, 1)

    def observe_many(self, amount: float, count: int) -> None:
        """As `count` times `observe(amount)`."""
        # The library offers only the loop over `observe`, which for 64 images takes as long as reading them.
        self._sum.inc(amount * count)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(count)


class Metrics:
    """Counters and histograms; label values are bounded: known methods, models, codes and reasons."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Register every metric on `registry`; on a new one if none is given."""
        self.registry = registry = registry or CollectorRegistry()
        self.requests = Counter(
            "fovea_requests_total",
            "Calls that ended, by gRPC status.",
            ["method", "model", "code"],
            registry=registry,
        )
        self.images = Counter(
            "fovea_images_total",
            "Images that ended, by status; those of a request that failed as a whole by its.",
            ["model", "code"],
            registry=registry,
        )
        self.request_duration = CountedHistogram(
            "fovea_request_duration_seconds",
            "From a call's start, its message still unread, to its end; not for streams.",
            ["method", "model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.decode = self._model_seconds(
            "fovea_decode_seconds",
            "Decoding and preprocessing of an image, its wait for a decoding thread included.",
        )
        self.queue = CountedHistogram(
            "fovea_queue_seconds",
            "From an image's arrival in the queue, decoded or to be decoded in the run, to its batch.",
            ["model"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.inference = self._model_seconds("fovea_inference_seconds", "One run of a batch.")
        self.search = CountedHistogram(
            "fovea_search_seconds",
            "One call of the retrieval engine's search, its wait for a thread included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = CountedHistogram(
            "fovea_batch_size", "Images in one run.", ["model"], buckets=_IMAGES, registry=registry
        )
        self.queue_depth = Gauge(
            "fovea_queue_depth",
            "Images that are in: decoding, waiting or running.",
            ["model"],
            registry=registry,
        )
        self.shed = Counter(
            "fovea_shed_total",
            "Images that were given up, by reason: full or predicted_late at the door; expired, "
            "dropped_late or cancelled after it.",
            ["model", "reason"],
            registry=registry,
        )
        self.slack = CountedHistogram(
            "fovea_deadline_slack_seconds",
            "What an answered request or stream message had left to its deadline; at most 0: it came late.",
            ["model"],
            buckets=(0.0, *_SECONDS),
            registry=registry,
        )
        self.saturation = Gauge(
            "fovea_saturation",
            "How long the images that are in will take, as predicted, over the default timeout; "
            "towards 1 callers are refused. A signal to scale by.",
            ["model"],
            registry=registry,
        )
        self.model_info = Gauge(
            "fovea_model_info",
            "1 for each loaded model.",
            ["model", "version", "execution_provider", "precision"],
            registry=registry,
        )
        self.model_load_duration = Gauge(
            "fovea_model_load_duration_seconds",
            "Reading, session and warm-up of a model.",
            ["model"],
            registry=registry,
        )
        # Finding a child by its labels costs more than using it.
        self._calls: dict[tuple[str, str, str], Counter] = {}
        self._durations: dict[tuple[str, str], CountedHistogram] = {}
        self.event_loop_lag = CountedHistogram(
            "fovea_event_loop_lag_seconds",
            "How late the event loop comes to what is due.",
            buckets=_LAG_SECONDS,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def count_call(self, method: str, model: str, code: str) -> None:
        """A call ended with that status."""
        child = self._calls.get((method, model, code))
        if child is None:
            child = self._calls[method, model, code] = self.requests.labels(method, model, code)
        child.inc()

    def time_call(self, method: str, model: str, seconds: float) -> None:
        """A unary call took so long."""
        child = self._durations.get((method, model))
        if child is None:
            child = self._durations[method, model] = self.request_duration.labels(method, model)
        child.observe(seconds)

    def of_model(self, name: str) -> "ModelMetrics":
        """What concerns one model, its label already applied."""
        return ModelMetrics(self, name)

    def _model_seconds(self, name: str, text: str) -> CountedHistogram:
        return CountedHistogram(name, text, ["model"], buckets=_SECONDS, registry=self.registry)


class ModelMetrics:
    """One model's children of `Metrics`."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.decode = metrics.decode.labels(name)
        self.queue = metrics.queue.labels(name)
        self.inference = metrics.inference.labels(name)
        self.batch_size = metrics.batch_size.labels(name)
        self.queue_depth = metrics.queue_depth.labels(name)
        self.slack = metrics.slack.labels(name)
        self.saturation = metrics.saturation.labels(name)
        self.images_ok = metrics.images.labels(name, "OK")
        # Known reasons are there from the start, as 0.
        self.shed = {reason: metrics.shed.labels(name, reason) for reason in SHED_REASONS}
        self._images, self._name = metrics.images, name

    def images(self, code: str) -> Counter:
        """The counter of images that ended with that status."""
        return self._images.labels(self._name, code)


class MetricsServer:
    """Serves /metrics over HTTP from a thread of its own."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Start listening.

        Raises:
            OSError: the address can't be listened on.
        """
        self._server: WSGIServer
        self._thread: Thread
        self._server, self._thread = start_http_server(port, host, registry)
        handler: Any = self._server.RequestHandlerClass
        # Each connection has a thread: one that says nothing gives it back.
        self._server.RequestHandlerClass = type("Handler", (handler,), {"timeout": _CONNECTION_TIMEOUT_S})
        self.port: int = self._server.server_port

    def stop(self) -> None:
        """Stop listening and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
