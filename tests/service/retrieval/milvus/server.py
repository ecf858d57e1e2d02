"""Real servers of the test session's own: milvus-lite, and Milvus 2.3.5 where FOVEA_TEST_MILVUS is set."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import pytest

from service.retrieval.index import Index

STANDALONE = "FOVEA_TEST_MILVUS"
_HERE = Path(__file__).parent


class Milvus:
    """A server in a process of its own, in a new folder; both go with this process."""

    def __init__(self, *, standalone: bool) -> None:
        for package in ("pymilvus", "milvus" if standalone else "milvus_lite"):
            if find_spec(package) is None:
                pytest.skip(f"{package} isn't installed")
        self._standalone = standalone
        self._folder = Path(tempfile.mkdtemp(prefix="fovea-milvus-"))
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        folder, python = str(self._folder / "data"), sys.executable
        if self._standalone:
            if not shutil.which("unshare") or not shutil.which("ip"):
                pytest.skip("unshare and ip, which keep Milvus off the network, aren't there")
            socket = str(self._folder / "socket")
            Path(socket).unlink(missing_ok=True)
            own_network = ("unshare", "--net", "--map-root-user")
            command = [*own_network, python, str(_HERE / "standalone.py"), folder, socket]
        else:
            command = [python, str(_HERE / "lite.py"), folder]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        said = _stream(self._process.stdout).readline().strip()
        if not said:
            raise RuntimeError((self._folder / "log").read_text()[-2000:])
        self.url = f"unix:{socket}" if self._standalone else f"http://127.0.0.1:{said}"

    def kill(self) -> None:
        """End it without letting it finish."""
        self._process.kill()
        self._process.wait()
        self._close()

    def stop(self) -> None:
        """End it, and remove its folder."""
        if self._process.poll() is None:
            _stream(self._process.stdin).close()
            self._process.wait(30)
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            _stream(stream).close()


@contextmanager
def started() -> Any:
    """A milvus-lite for one test, which may kill it."""
    server = Milvus(standalone=False)
    try:
        yield server
    finally:
        server.stop()


@cache
def lite() -> Milvus:
    """The milvus-lite that tests share; each has a namespace of its own."""
    return Milvus(standalone=False)


@cache
def standalone() -> Milvus:
    """The Milvus that tests share."""
    if not os.environ.get(STANDALONE):
        pytest.skip(f"{STANDALONE} isn't set: with a real Milvus the tests take a quarter of an hour")
    return Milvus(standalone=True)


def open_lite(folder: Path, **settings: Any) -> Index:
    """An index on milvus-lite, in the namespace that belongs to a folder's name."""
    return _open(lite(), folder, **settings)


def open_standalone(folder: Path, **settings: Any) -> Index:
    """An index on Milvus itself."""
    return _open(standalone(), folder, **settings)


def namespace_of(folder: Path) -> str:
    """A namespace for each folder."""
    return "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def _open(server: Milvus, folder: Path, **settings: Any) -> Index:
    from service.retrieval.milvus.engine import MilvusIndex

    return MilvusIndex(server.url, namespace=namespace_of(folder), **settings)


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
