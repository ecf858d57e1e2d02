"""The engines that the contract and the model tests run against: one line each."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import Index

Opener = Callable[[Path], Index]

# Opening the same folder again must find what was written there.
ENGINES: dict[str, Opener] = {
    "embedded": EmbeddedIndex,
    "embedded-small-segments": partial(EmbeddedIndex, max_segment_rows=3),
}


@pytest.fixture(params=ENGINES)
def open_engine(request: pytest.FixtureRequest) -> Opener:
    """Opens an index of each engine in a folder."""
    return ENGINES[request.param]


@pytest.fixture
def index(open_engine: Opener, tmp_path: Path) -> Iterator[Index]:
    """An empty index of each engine."""
    index = open_engine(tmp_path / "index")
    yield index
    index.close()
