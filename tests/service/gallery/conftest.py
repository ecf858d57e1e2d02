"""Galleries over a real index, with and without loaded models, and folders of pictures."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from service.config import Config
from service.gallery.gallery import Gallery
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.preprocess import Preprocessing
from service.repository import ModelRepository
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import Index, Item
from tests.packages import SIZE, write_colors, write_pixels

House = Callable[..., "asyncio.Future[Gallery]"]


class CountingIndex(EmbeddedIndex):
    """Also keeps the size of each write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.writes: list[int] = []

    def upsert(self, collection: str, items: Sequence[Item]) -> None:
        self.writes.append(len(items))
        super().upsert(collection, items)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[CountingIndex]:
    """An empty index."""
    index = CountingIndex(tmp_path / "index")
    yield index
    index.close()


@asynccontextmanager
async def opened(config: Config, index: Index, *models: str) -> AsyncIterator[Gallery]:
    """A gallery with these models loaded."""
    metrics = Metrics()
    repository = ModelRepository(config, metrics)
    pipeline = Pipeline(config, 1, metrics, lambda error: type(error).__name__)
    gallery = Gallery(index, pipeline, repository, config, metrics)
    try:
        for name in models:
            await repository.load(name)
        yield gallery
    finally:
        assert gallery.close()
        assert await repository.close(10)
        assert pipeline.close(10)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the models `colors` (24 numbers) and `pixels` (8)."""
    folder = tmp_path_factory.mktemp("packages")
    write_colors(folder)
    write_pixels(folder, Preprocessing(SIZE, SIZE, SIZE, "bilinear"))
    return folder


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is entered here is left at the end."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def gallery(packages: Path, index: CountingIndex, stack: AsyncExitStack) -> Gallery:
    """Without a loaded model, a snapshot folder or image roots."""
    return await stack.enter_async_context(opened(Config(model_repository=packages), index))


def in_a_minute() -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + 60
