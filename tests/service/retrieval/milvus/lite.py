"""Run by `server.py`: milvus-lite in a process of its own, which listens on a Unix socket only.

It says "ready", and ends when its standard input does, so it never outlives who started it.
"""

import sys

from milvus_lite.adapter.grpc.server import start_server_in_thread


def _main(folder: str, socket: str) -> None:
    path, _, number = socket.rpartition(":")  # it puts a port behind the host
    server, database, _ = start_server_in_thread(folder, host=f"unix:{path}", port=int(number))
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(grace=1).wait()
    database.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
