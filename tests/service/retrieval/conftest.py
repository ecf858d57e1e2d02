"""The engines that the contract and the model tests run against: one line each."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import Index
from tests.service.retrieval.milvus.server import open_lite, open_standalone
from tests.service.retrieval.pgvector.server import open_pgvector

Opener = Callable[[Path], Index]

# Opening the same folder again must find what was written there.
ENGINES: dict[str, Opener] = {
    "embedded": EmbeddedIndex,
    "embedded-small-segments": partial(EmbeddedIndex, max_segment_rows=3),
    "pgvector": open_pgvector,
    "milvus-lite": partial(open_lite, index_type="flat"),
}
# Those that test_model_large.py runs, with limits so low that some hundred items are searched as many are.
LARGE_ENGINES: dict[str, Opener] = {
    "embedded": EmbeddedIndex,
    "embedded-1-bit": partial(EmbeddedIndex, max_segment_rows=100, min_tier_rows=256),
    "pgvector-hnsw": partial(open_pgvector, index_from_items=256),
    "milvus-lite-hnsw": open_lite,
}
if os.environ.get("FOVEA_TEST_MILVUS") != "0":  # a real Milvus takes some seconds for each collection
    ENGINES["milvus"] = partial(open_standalone, index_type="flat")
    LARGE_ENGINES["milvus-hnsw"] = open_standalone
# Those that may miss some of the nearest; and whose order of equally near items is not that of writing.
APPROXIMATE: frozenset[str] = frozenset()
# Those that may count an item several times while it is being replaced.
COUNTS_TWICE: frozenset[str] = frozenset({"milvus"})
# Where the random tests keep their folders, whose thousands of writes would else each wait for the disk.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - each makes a folder of its own there
# How many random histories are tried, where a call takes longer than in this process.
EXAMPLES: dict[str, int] = {
    "pgvector": 15,
    "pgvector-hnsw": 2,
    "milvus-lite": 1,
    "milvus-lite-hnsw": 1,
    "milvus": 1,
    "milvus-hnsw": 1,
}
# What an engine can hold, where it is less than the contract's 65,536.
MAX_DIMENSION: dict[str, int] = {"pgvector": 16_000, "milvus-lite": 32_768, "milvus": 32_768}
# As well of the 64 attributes.
MAX_ATTRIBUTES: dict[str, int] = {"milvus-lite": 60, "milvus": 60}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine."""
    return str(request.param)


@pytest.fixture
def open_engine(engine: str) -> Opener:
    """Opens an index of the engine in a folder."""
    return ENGINES[engine]


@pytest.fixture
def index(open_engine: Opener, tmp_path: Path) -> Iterator[Index]:
    """An empty index of the engine."""
    index = open_engine(tmp_path / "index")
    yield index
    index.close()
