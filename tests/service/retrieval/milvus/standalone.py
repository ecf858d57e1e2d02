"""Run by `server.py` in a network of its own: a real Milvus 2.3.5, reachable by a Unix socket only.

Milvus listens on all interfaces, and no setting changes that; here there is but the loopback one.

    unshare --net --map-root-user python standalone.py FOLDER SOCKET

It says "ready", and ends when its standard input does, so it never outlives who started it.
"""

import asyncio
import signal
import subprocess
import sys
from contextlib import suppress

from milvus import MilvusServer, MilvusServerConfig

# How often Milvus tells its nodes the time; a strongly consistent read waits for it. Its default is 200 ms.
_TICK_MS = 20


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _relay(port: int, socket: str) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        milvus_reader, milvus_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, milvus_writer), _copy(milvus_reader, writer))

    async with await asyncio.start_unix_server(connect, socket):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def _main(folder: str, socket: str) -> None:
    # What ends all of a terminal's or a job's processes would end this one before it has stopped Milvus.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    config = MilvusServerConfig(data_dir=folder)
    config.set("proxy.timeTickInterval", _TICK_MS)
    server = MilvusServer(config)
    server.start()
    try:
        asyncio.run(_relay(server.listen_port, socket))
    finally:
        server.stop()


if __name__ == "__main__":
    _main(*sys.argv[1:])
