"""Where Milvus is: what to connect with, and how errors name it without its password."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from service.errors import ConfigError

_DEFAULT_PORT = 19_530
_SCHEMES = ("http", "https", "tcp")
_MAX_NAMESPACE = 32
_MAX_TOLD = 300


@dataclass(frozen=True)
class Address:
    """A Milvus server, a database of it, and the prefix of what is ours in there.

    Attributes:
        uri: for pymilvus, without user and password.
        namespace: what the names of our collections and aliases begin with.
        user: "": nobody in particular.
        password: the user's; without a user a token.
        database: "": the default one.
    """

    uri: str
    namespace: str
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""

    def __str__(self) -> str:
        database = f", database {self.database}" if self.database else ""
        return f"Milvus at {self.uri}{database}, namespace {self.namespace}"

    def told(self, error: BaseException) -> str:
        """The first line of what an error says, without the password."""
        text = str(getattr(error, "message", "") or error).strip()
        line = (text or type(error).__name__).splitlines()[0][:_MAX_TOLD]
        return line.replace(self.password, "***") if self.password else line


def parse(url: str, namespace: str) -> Address:
    """Read http://user:password@host:port/database (or https, tcp), or unix:/path/of/socket.

    Raises:
        ConfigError: it can't be read, or the namespace can't be used.
    """
    plain = namespace.isidentifier() and namespace.isascii() and "__" not in namespace
    if not plain or namespace.endswith("_") or len(namespace) > _MAX_NAMESPACE:
        raise ConfigError(
            f"the namespace in Milvus is {namespace!r}; expected 1 to {_MAX_NAMESPACE} letters, digits and "
            "single '_', starting with no digit and ending with no '_'"
        )
    if url.startswith("unix:") and len(url) > len("unix:"):
        return Address(url, namespace)
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        parts, port = urlsplit(""), 0
    database = parts.path.strip("/")
    if parts.scheme not in _SCHEMES or not parts.hostname or "/" in database or parts.query:
        # It isn't shown, nor chained: a password may stand in it.
        raise ConfigError(
            "the URL of Milvus can't be read; expected http://host:port or https://host:port, perhaps with "
            "user:password@ before the host and /database behind, or unix:/path/of/socket"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(
        f"{parts.scheme}://{host}:{port}",
        namespace,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        unquote(database),
    )
