import pytest

from service.errors import ConfigError
from service.retrieval.pgvector.address import Address


@pytest.mark.parametrize(
    ("conninfo", "name"),
    [
        ("postgresql://fovea:hunter2@db.example:6432/art", "db.example:6432, database art"),
        ("host=/run/pg dbname=art password=hunter2", "/run/pg:5432, database art"),
        ("hostaddr=127.0.0.1", "127.0.0.1:5432, database somebody"),
        ("", "the local socket:5432, database somebody"),
    ],
)
def test_is_named_without_its_password(conninfo: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGPASSWORD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PGDATABASE", "somebody")
    address = Address(conninfo, "fovea", 5)
    assert str(address) == f"PostgreSQL at {name}, schema fovea"
    assert ("password" in address.conninfo) == ("hunter2" in conninfo)


def test_what_the_environment_says_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "7000")
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    address = Address("dbname=art", "fovea", 5)
    assert str(address) == "PostgreSQL at db.example:7000, database art, schema fovea"
    assert address.told(RuntimeError("hunter2?")) == "***?"


def test_the_password_is_cut_from_what_others_say() -> None:
    address = Address("postgresql://fovea:hunter2@db/art", "fovea", 5)
    assert (
        address.told(RuntimeError("it says hunter2, twice: hunter2\nand more")) == "it says ***, twice: ***"
    )
    assert address.told(RuntimeError()) == "RuntimeError"


def test_what_the_caller_sets_stays() -> None:
    address = Address("host=db connect_timeout=2 application_name=mine", "fovea", 5)
    assert "connect_timeout=2" in address.conninfo
    assert "application_name=mine" in address.conninfo
    assert "keepalives_idle=10" in address.conninfo


@pytest.mark.parametrize("conninfo", ["host=db hunter2", "postgresql://u:hunter2@[db/x", "passwort=hunter2"])
def test_what_cannot_be_read_is_not_shown(conninfo: str) -> None:
    with pytest.raises(ConfigError, match="can't be read; expected postgresql://") as caught:
        Address(conninfo, "fovea", 5)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("schema", ["", "a-b", "1a", 'a"b', "pg_fovea", "x" * 64, "é"])
def test_a_bad_schema_is_refused(schema: str) -> None:
    with pytest.raises(ConfigError, match="schema is"):
        Address("host=db", schema, 5)
