"""What the URL of Milvus may be."""

import pytest

from service.errors import ConfigError
from service.retrieval.milvus.address import Address, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost", Address("http://localhost:19530", "fovea")),
        ("https://m.example:443/art", Address("https://m.example:443", "fovea", database="art")),
        ("tcp://[::1]:1", Address("tcp://[::1]:1", "fovea")),
        ("http://me:p%40ss@h:1", Address("http://h:1", "fovea", "me", "p@ss")),
        ("https://:token@h", Address("https://h:19530", "fovea", "", "token")),
        ("unix:/run/milvus.sock", Address("unix:/run/milvus.sock", "fovea")),
    ],
)
def test_an_address_is_read(url: str, address: Address) -> None:
    assert parse(url, "fovea") == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:19530",
        "ftp://u:hunter2@h",
        "http://u:hunter2@",
        "http://u:hunter2@h:99999",
        "http://u:hunter2@h:x",
        "http://u:hunter2@h/a/b",
        "http://u:hunter2@h/?x=1",
        "http://u:hunter2@[h",
        "hunter2.db",
        "unix:",
    ],
)
def test_what_cannot_be_read_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http://host:port") as caught:
        parse(url, "fovea")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("namespace", ["", "1a", "a-b", "a__b", "a_", "é", "a" * 33, "a b"])
def test_a_namespace_that_would_run_into_others_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigError, match=r"the namespace in Milvus is .* expected 1 to 32 letters"):
        parse("http://h", namespace)


def test_passwords_are_not_told() -> None:
    address = parse("http://me:hunter2@h:1/art", "fovea")
    assert "hunter2" not in str(address)
    assert "hunter2" not in repr(address)
    assert address.told(ValueError("no hunter2 here\nsecond line")) == "no *** here"
    assert str(address) == "Milvus at http://h:1, database art, namespace fovea"
