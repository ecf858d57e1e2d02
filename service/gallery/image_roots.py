"""The folders that the server itself opens images in, and nowhere else."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from service.errors import ConfigError, InvalidImage, NotConfigured, RequestError, shorten

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: opening a pipe would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ImageRoots:
    """Reads image files that lie under its folders, wherever links lead."""

    def __init__(self, roots: Sequence[str], max_image_bytes: int) -> None:
        """Look whether the folders are there.

        Args:
            roots: the folders.
            max_image_bytes: of a file; a larger one is refused.

        Raises:
            ConfigError: one isn't a folder.
        """
        self._max_image_bytes = max_image_bytes
        self._roots: list[Path] = []
        for root in roots:
            if not root or not Path(root).is_dir():
                raise ConfigError(f"image_roots has {root!r}; expected folders that are there")
            self._roots.append(Path(root).resolve())

    def check_configured(self) -> None:
        """Raises:
        NotConfigured: there are no folders.
        """
        if not self._roots:
            raise NotConfigured(
                "this server opens no image files; start it with --image-root (FOVEA_IMAGE_ROOTS), a folder "
                "that they lie in"
            )

    def read_some(self, uris: Sequence[str | RequestError], most_bytes: int) -> list[bytes | RequestError]:
        """The files' contents or their errors, in order: all, or the first ones that together pass the bytes.

        Args:
            uris: as in `read`; an error stays as it is.
            most_bytes: reading ends when so many have been read.
        """
        contents: list[bytes | RequestError] = []
        size_bytes = 0
        for uri in uris:
            content = uri if isinstance(uri, RequestError) else self._read_or_error(uri)
            contents.append(content)
            size_bytes += len(content) if isinstance(content, bytes) else 0
            if size_bytes >= most_bytes:
                break
        return contents

    def _read_or_error(self, uri: str) -> bytes | RequestError:
        try:
            return self.read(uri)
        except RequestError as error:
            return error.with_traceback(None)

    def read(self, uri: str) -> bytes:
        """The content of one image file.

        Args:
            uri: an absolute path, or a file:// URI.

        Raises:
            InvalidImage: it is no such name, lies outside the folders, isn't there, isn't a regular file, is
                too large, or can't be read.
        """
        try:
            real = Path(os.path.realpath(_path_of(uri)))
            root = next((root for root in self._roots if real.is_relative_to(root)), None)
            if root is None or real == root:
                raise InvalidImage(
                    f"{shorten(uri)} lies outside the server's image_roots; expected a file under one of them"
                )
            return self._read_under(root, real.relative_to(root).parts, uri)
        except (OSError, ValueError) as error:  # a zero byte, or a lone surrogate, is a ValueError
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidImage(f"{shorten(uri)} can't be read: {reason or error}") from None

    def _read_under(self, root: Path, parts: Sequence[str], uri: str) -> bytes:
        # Step by step and never through a link: one that takes a folder's place after the look above leads
        # nowhere.
        descriptor = os.open(root, _FOLDER)
        try:
            for number, part in enumerate(parts, 1):
                flags = _FILE if number == len(parts) else _FOLDER
                inner = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidImage(f"{shorten(uri)} isn't a regular file; expected an image file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(self._max_image_bytes + 1)
            if len(content) > self._max_image_bytes:
                raise InvalidImage(
                    f"{shorten(uri)} has {max(status.st_size, len(content)):,} bytes; expected at most "
                    f"{self._max_image_bytes:,}"
                )
            return content
        finally:
            with suppress(OSError):
                os.close(descriptor)


def _path_of(uri: str) -> str:
    if uri.startswith("/"):
        return uri
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        if parts.query or parts.fragment:
            raise InvalidImage(f"{shorten(uri)} has a query or a fragment; expected a plain file:// URI")
        return os.fsdecode(unquote_to_bytes(parts.path))
    raise InvalidImage(f"{shorten(uri)}; expected an absolute path, or a file:// URI of this machine")
