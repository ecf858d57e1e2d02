"""Keeps a thread until a test lets it go on."""

import asyncio
import threading


class Gate:
    """Keeps the thread that comes to it until it is opened; `begun` says that one came."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.begun.set()
        assert self.opened.wait(30)

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 30)
