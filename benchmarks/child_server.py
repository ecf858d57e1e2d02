"""A bare server that a benchmark runs as a child: prints its address and serves until SIGTERM."""

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from service.http2.server import Http2Server


async def serve(
    server: grpc.aio.Server | Http2Server,
    service: str,
    handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]",
) -> None:
    """Serve the methods of one service on a free port of loopback."""
    # As generated code does: each server has its own way to a method.
    server.add_registered_method_handlers(service, dict(handlers))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(f"127.0.0.1:{port}", flush=True)
    await stop.wait()
    await server.stop(0.5)
