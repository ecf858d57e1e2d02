"""grpc.health.v1: who may send what here. Three kinds of names:

"" is ready: every model is warm and the server isn't draining. "liveness": the process works; it stays
SERVING while models load and while calls drain. "model/<name>": that model is warm.
"""

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

READY = ""
LIVENESS = "liveness"


def model_service(name: str) -> str:
    """The health name of a model."""
    return f"model/{name}"


class Health:
    """Sets what the standard health service answers."""

    def __init__(self, models: list[str]) -> None:
        self._names = [READY, *(model_service(model) for model in models)]
        self._servicer = health.aio.HealthServicer()

    async def start(self, server: grpc.aio.Server) -> None:
        """Register; alive from now on, not ready yet."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        await self._set([LIVENESS], serving=True)
        await self._set(self._names, serving=False)

    async def model_ready(self, model: str) -> None:
        """A model is warm."""
        await self._set([model_service(model)], serving=True)

    async def ready(self) -> None:
        """All models are warm."""
        await self._set([READY], serving=True)

    async def draining(self) -> None:
        """Send nothing more here; alive all the same."""
        await self._set(self._names, serving=False)

    async def _set(self, names: list[str], *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in names:
            await self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)
