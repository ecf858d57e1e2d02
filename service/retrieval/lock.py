"""One process per folder: a lock that names its owner and goes when the owner does."""

import fcntl
import os
import socket
import time
from pathlib import Path

from service.errors import IndexLocked, IndexUnusable

FILE_NAME = "lock"
# Between taking the lock and writing its pid an owner needs microseconds.
_OWNER_WAIT_S = 0.2


class FolderLock:
    """An exclusive flock on <folder>/lock, whose text is the owner's pid and host.

    The kernel drops the lock with the process, however it ends, so the text alone locks nothing.
    The file stays: were it removed, two openers could hold locks on two files of that name.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock; makes the folder where it is missing.

        Raises:
            IndexLocked: another opener, of this process or another, has it; names its pid.
            IndexUnusable: the folder can't be made or written to.
        """
        path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise IndexUnusable(
                f"{folder}: can't hold a retrieval index: {error.strerror}; expected a folder that this "
                f"process (user id {os.geteuid()}) may write to"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except BlockingIOError:
            owner = _read_owner(path)
            self._close()
            raise IndexLocked(
                f"{folder}: the index is in use by {owner}; stop that process, or choose another folder"
            ) from None
        except OSError as error:
            self._close()
            raise IndexUnusable(f"{path}: can't be locked: {error.strerror}") from error

    def release(self) -> None:
        """Give the folder free; a second call does nothing."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            # Closing alone would leave it locked for as long as a forked child has the descriptor.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read_owner(path: Path) -> str:
    deadline = time.monotonic() + _OWNER_WAIT_S
    while time.monotonic() < deadline:
        match path.read_text(errors="replace").split():
            case [pid, host]:
                return f"the process with pid {pid} on {host}"
        time.sleep(0.01)
    return "another process, which hasn't written its pid"
