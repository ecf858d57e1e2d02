"""On both kinds of loop: they differ in what they do with a transport that closes."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Those that serve, on Linux and elsewhere."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
