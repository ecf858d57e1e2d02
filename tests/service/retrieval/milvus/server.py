"""Real servers of the test session's own: milvus-lite, and Milvus 2.3.5 where its package is installed."""

import atexit
import hashlib
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import pytest

from service.retrieval.index import Index


class Milvus:
    """A server in a process of its own, in a new folder, that listens on a Unix socket in it.

    Attributes:
        url: what to connect to.
    """

    def __init__(self, *, standalone: bool) -> None:
        for package in ("pymilvus", "milvus" if standalone else "milvus_lite"):
            if find_spec(package) is None:
                pytest.skip(f"{package} isn't installed")
        if standalone and not (shutil.which("unshare") and shutil.which("ip")):
            pytest.skip("unshare and ip, which keep Milvus off the network, aren't there")
        self._standalone = standalone
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own there
        self._folder = Path(tempfile.mkdtemp(prefix="fovea-milvus-", dir=memory))
        self._socket = self._folder / "socket:0"
        self.url = f"unix:{self._socket}"
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self._socket.unlink(missing_ok=True)
        own_network = ["unshare", "--net", "--map-root-user"] if self._standalone else []
        script = Path(__file__).with_name("standalone.py" if self._standalone else "lite.py")
        command = [*own_network, sys.executable, str(script), str(self._folder / "data"), str(self._socket)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        if _stream(self._process.stdout).readline().strip() != "ready":
            raise RuntimeError((self._folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """End milvus-lite without letting it finish."""
        self._process.kill()
        self._end()

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        _stream(self._process.stdin).close()
        self._process.wait(30)
        _stream(self._process.stdout).close()


@cache
def lite() -> Milvus:
    """The milvus-lite that tests share; each has a namespace of its own."""
    return _kept(Milvus(standalone=False))


@cache
def standalone() -> Milvus:
    """The Milvus that tests share."""
    return _kept(Milvus(standalone=True))


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


def _kept(server: Milvus) -> Milvus:
    """Until the tests end."""
    atexit.register(server.stop)
    return server


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
