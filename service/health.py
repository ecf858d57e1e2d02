"""grpc.health.v1: who may send what here. Three kinds of names:

"" is ready: every model is warm and the server isn't draining. "liveness": the process works; it stays
SERVING while models load and while calls drain. "model/<name>": that model is warm.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.http2.server import Http2Server

READY = ""
LIVENESS = "liveness"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def model_service(name: str) -> str:
    """The health name of a model."""
    return f"model/{name}"


class Health:
    """What the server says of itself; the servicer below tells it.

    Attributes:
        closing: the watches shall end.
        asked: somebody has wanted to know whether calls may be sent here, as balancers do.
    """

    def __init__(self, models: list[str]) -> None:
        """Alive, and not ready yet."""
        self._statuses = {LIVENESS: _SERVING, READY: _NOT_SERVING}
        self._statuses |= {model_service(model): _NOT_SERVING for model in models}
        # Replaced at each change: who waits on the old one is woken and looks again.
        self._changed = asyncio.Event()
        self.closing = self.asked = False

    def register(self, server: Http2Server) -> None:
        """Answer health checks on this server."""
        health_pb2_grpc.add_HealthServicer_to_server(_Servicer(self), server)

    def model_ready(self, model: str) -> None:
        """A model is warm."""
        self._change({model_service(model): _SERVING})

    def ready(self) -> None:
        """All models are warm."""
        self._change({READY: _SERVING})

    def draining(self) -> None:
        """Send nothing more here; alive all the same."""
        self._change({name: _NOT_SERVING for name in self._statuses if name != LIVENESS})

    def close(self) -> None:
        """End the watches, which would otherwise keep the server from stopping."""
        self.closing = True
        self._change({})

    def status(self, name: str) -> int | None:
        """The status under a name; None if there is no such name."""
        self.asked = self.asked or name != LIVENESS
        return self._statuses.get(name)

    async def wait_for_change(self) -> None:
        """Until a status has changed, or the watches end."""
        await self._changed.wait()

    def _change(self, statuses: dict[str, Any]) -> None:
        self._statuses |= statuses
        self._changed.set()
        self._changed = asyncio.Event()


class _Servicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the library has no types
    # The library's own aio servicer forgets all watchers of a name when one of them leaves, and its
    # watches never end, so that each drain would last until its timeout.

    def __init__(self, health: Health) -> None:
        self._health = health

    async def Check(self, request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:  # noqa: N802 - the protocol's name
        status = self._health.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"nothing is called {request.service!r} here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:  # noqa: N802 - the protocol's name
        told = None
        while True:
            status = self._health.status(request.service)
            if status is None:
                status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                told = status
                await context.write(health_pb2.HealthCheckResponse(status=status))
            elif self._health.closing:
                return
            else:
                await self._health.wait_for_change()
