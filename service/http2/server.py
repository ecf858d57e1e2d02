"""The server: methods, listening sockets, connections, and a stop that lets calls finish."""

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import grpc

from service.http2.connection import Connection
from service.http2.limits import Limits

Handler = Any  # grpc.RpcMethodHandler, which has no type parameters when it runs
_BACKLOG = 1024
# Of a connection's age, so that clients that came together don't come back together.
_AGE_SPREAD = 0.1
# How long cancelled handlers may take.
_CANCEL_S = 1.0
# Of an address that a name has, but not this machine.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Http2Server:
    """Serves gRPC without TLS; generated code registers its services on it."""

    def __init__(
        self, limits: Limits, wrap: Callable[[str, Handler], Handler] = lambda _, handler: handler
    ) -> None:
        """Make it, on no port yet.

        Args:
            limits: of each connection.
            wrap: a method's full name and handler → the handler that serves it.
        """
        self._limits, self._wrap = limits, wrap
        self._handlers: dict[str, Handler] = {}
        self._sockets: list[socket.socket] = []
        self._listening: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()  # set when the last connection has closed, its handlers over
        self._stopping = False

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve a service's methods; called by generated code."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._handlers[method] = self._wrap(method, handler)

    def add_generic_rpc_handlers(self, _: Iterable[Any]) -> None:
        """Nothing: generated code registers the same methods by name too."""

    def add_insecure_port(self, address: str) -> int:
        """Take a port on every address that the host's name has; `start` listens there.

        Args:
            address: host:port; port 0 takes a free one, the same on each.

        Returns:
            The port.

        Raises:
            OSError: it can't be had.
        """
        host, _, port_text = address.rpartition(":")
        port = int(port_text)
        host = host.strip("[]")
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        absent, bound = None, False
        for family, kind, protocol, _, place in dict.fromkeys(found):
            listener = None
            try:
                listener = socket.socket(family, kind, protocol)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
                listener.bind((place[0], port, *place[2:]))
                # At once: a second server that binds the same port fails here, and not later.
                listener.listen(_BACKLOG)
            except OSError as error:
                if listener is not None:
                    listener.close()
                if error.errno in _ABSENT:  # as ::1 of localhost where IPv6 is off
                    absent = error
                    continue
                self._release()
                raise
            self._sockets.append(listener)
            port, bound = listener.getsockname()[1], True
        if absent is not None and not bound:
            self._release()
            raise absent
        return port

    def _release(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    async def start(self) -> None:
        """Serve, on the running loop."""
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            self._listening.append(await loop.create_server(self._connect, sock=listener, backlog=_BACKLOG))

    async def stop(self, grace: float | None) -> None:
        """Take nothing new, let calls finish for so many seconds, then end them.

        Args:
            grace: None: end them at once.
        """
        self._stopping = True
        for server in self._listening:
            server.close()
        if not self._listening:
            self._release()
        for connection in list(self._connections):
            connection.go_away()
        if grace:
            await self._until_empty(grace)
        for connection in list(self._connections):
            connection.cancel_calls(grpc.StatusCode.UNAVAILABLE, "the server stops")
        await self._until_empty(_CANCEL_S)
        for connection in list(self._connections):
            connection.abort()

    async def _until_empty(self, seconds: float) -> None:
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()

    def _connect(self) -> Connection:
        limits = self._limits
        if limits.age_s:
            limits = replace(limits, age_s=limits.age_s * random.uniform(1 - _AGE_SPREAD, 1 + _AGE_SPREAD))  # noqa: S311 - no secret
        connection = Connection(self._handlers.get, limits, self._connections, self._empty.set)
        if self._stopping:  # it waited to be accepted
            connection.go_away()
        return connection
