"""Where the database is: what to connect with, and how errors name it without its password."""

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from service.errors import ConfigError

# A connection whose other end is gone is noticed after 10 + 3 × 5 s, when nothing is under way too.
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


class Address:
    """A database and a schema in it.

    Attributes:
        conninfo: for psycopg.
        schema: where our tables are.
    """

    def __init__(self, conninfo: str, schema: str, connect_timeout_s: int) -> None:
        """Read a connection string, libpq's `host=… dbname=…` or `postgresql://…`.

        Raises:
            ConfigError: it can't be read, or the schema's name can't be used.
        """
        try:
            given = conninfo_to_dict(conninfo)
        except ProgrammingError:
            # Neither it nor libpq's words are shown, nor chained: a password may stand in them.
            raise ConfigError(
                "the database's connection string can't be read; expected postgresql://user@host:port/name, "
                "or libpq's 'host=… port=… dbname=… user=…'"
            ) from None
        if not schema.isidentifier() or not schema.isascii() or schema.startswith("pg_") or len(schema) > 63:
            raise ConfigError(
                f"the database's schema is {schema!r}; expected 1 to 63 letters, digits and '_', starting "
                "neither with a digit nor with pg_"
            )
        self.schema = schema
        # With what libpq takes from the environment.
        whole = {option.keyword.decode(): (option.val or b"").decode() for option in Conninfo.get_defaults()}
        whole |= {name: str(value) for name, value in given.items()}
        self._password = whole["password"]
        host = whole["host"] or whole["hostaddr"] or "the local socket"
        self._name = f"PostgreSQL at {host}:{whole['port']}, database {whole['dbname']}"
        defaults: dict[str, str | int] = {
            "application_name": "fovea",
            "connect_timeout": connect_timeout_s,
            "tcp_user_timeout": 1000 * connect_timeout_s,
            **_KEEPALIVE,
        }
        unset = {name: value for name, value in defaults.items() if name not in given}
        self.conninfo = make_conninfo(conninfo, **unset, client_encoding="utf8")

    def __str__(self) -> str:
        return f"{self._name}, schema {self.schema}"

    def told(self, error: BaseException) -> str:
        """The first line of what an error says, without the password."""
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return text.replace(self._password, "***") if self._password else text
