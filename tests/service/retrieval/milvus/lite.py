"""Run by `server.py`: milvus-lite in a process of its own, on a free port of the loopback interface.

It says its port, and ends when its standard input does, so it never outlives who started it.
"""

import sys

from milvus_lite.adapter.grpc.server import start_server_in_thread


def _main(folder: str) -> None:
    server, database, port = start_server_in_thread(folder, host="127.0.0.1", port=0)
    print(port, flush=True)
    sys.stdin.read()
    server.stop(grace=1).wait()
    database.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
