"""The engine that the configuration chooses."""

import importlib.util
import sys
from pathlib import Path

import pytest

import service.retrieval
from service.config import Config
from service.errors import ConfigError, StartError
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.open import open_index

PASSWORD = "not-to-be-seen"  # noqa: S105 - no real one
URL = f"postgresql://somebody:{PASSWORD}@127.0.0.1:1/none"


def test_the_embedded_engine_is_the_default(tmp_path: Path) -> None:
    index = open_index(Config(index_path=tmp_path / "index", approximate_from_items=300))
    assert isinstance(index, EmbeddedIndex)
    index.close()


@pytest.mark.parametrize(("engine", "package"), [("pgvector", "psycopg"), ("milvus", "pymilvus")])
def test_a_missing_package_names_its_extra(
    engine: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(f"service.retrieval.{engine}") is None:
        pytest.skip(f"this checkout has no engine {engine}")
    for name in [name for name in sys.modules if name.startswith(("service.retrieval.", package))]:
        if engine in name or name.startswith(package):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    if there := getattr(service.retrieval, engine, None):  # an import puts the new one in its place
        monkeypatch.setattr(service.retrieval, engine, there)
    with pytest.raises(StartError, match=rf"pip install 'fovea-serving\[{engine}\]'"):
        open_index(Config(index_engine=engine, index_url=URL))


@pytest.mark.parametrize(("engine", "url"), [("pgvector", ""), ("milvus", ""), ("embedded", URL)])
def test_a_url_belongs_to_a_server(engine: str, url: str) -> None:
    with pytest.raises(ConfigError, match=f"index_engine is '{engine}' and index_url is") as caught:
        Config(index_engine=engine, index_url=url)
    assert PASSWORD not in str(caught.value)


def test_a_password_is_not_printed() -> None:
    assert PASSWORD not in repr(Config(index_engine="pgvector", index_url=URL))


@pytest.mark.parametrize("items", [1, 255, -1])
def test_too_small_an_approximate_index_is_refused(items: int) -> None:
    with pytest.raises(ConfigError, match=f"approximate_from_items is {items}; expected"):
        Config(approximate_from_items=items)
