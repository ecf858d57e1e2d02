"""What the gallery builds on every engine alike: one file format between them, and re-embedding."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import numpy as np
import pytest

from service.config import Config
from service.gallery.items import NewItem
from service.gallery.searches import Search
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.filters import Range
from service.retrieval.index import CollectionSpec, GroupBy, Index, Item, Metric, SearchOptions, Storage
from service.retrieval.schema import AttributeType, AttributeValue
from tests.client.pictures import expected_embedding, file_bytes, pixels
from tests.service.gallery.conftest import in_a_minute, opened
from tests.service.retrieval.conftest import ENGINES

SCHEMA = {
    "uri": AttributeType.STRING,
    "number": AttributeType.INT,
    "weight": AttributeType.FLOAT,
    "even": AttributeType.BOOL,
}
COLORS = np.random.default_rng(9).integers(0, 256, (40, 3)).tolist()
PICTURES = [pixels((red, green, blue)) for red, green, blue in COLORS]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    """An empty index of each engine."""
    index = ENGINES[request.param](tmp_path / "engine")
    yield index
    index.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the pictures."""
    root = tmp_path / "root"
    root.mkdir()
    for number, picture in enumerate(PICTURES):
        (root / f"{number}.png").write_bytes(file_bytes(picture))
    return root


def attributes(root: Path, number: int) -> dict[str, AttributeValue]:
    """Every third has no other than those declared."""
    values: dict[str, AttributeValue] = {
        "uri": str(root / f"{number}.png"),
        "number": number,
        "weight": number / 4,
        "even": number % 2 == 0,
    }
    return values | ({"free": "ß"} if number % 3 else {})


def items(root: Path) -> list[Item]:
    vectors = np.random.default_rng(4).normal(size=(40, 6)).astype(np.float32)
    return [Item(f"{number:02}", vector, attributes(root, number)) for number, vector in enumerate(vectors)]


@pytest.mark.parametrize("storage", Storage)
@pytest.mark.parametrize("metric", Metric)
async def test_a_snapshot_moves_to_another_engine_and_back(
    engine: Index, packages: Path, tmp_path: Path, root: Path, metric: Metric, storage: Storage
) -> None:
    config = Config(model_repository=packages, snapshot_path=str(tmp_path / "snapshots"))
    other = EmbeddedIndex(tmp_path / "other")
    engine.create(CollectionSpec("photos", 6, metric, "f", SCHEMA, storage))
    engine.upsert("photos", items(root))
    engine.delete("photos", ["07"])
    before = engine.scan("photos", limit=100)
    async with opened(config, engine) as here, opened(config, other) as there:
        await here.snapshots.write("photos", "there", in_a_minute())
        await there.snapshots.restore("there", "", in_a_minute())
        moved = other.scan("photos", limit=100)
        await there.snapshots.write("photos", "back", in_a_minute())
        await here.snapshots.restore("back", "again", in_a_minute())
        back = engine.scan("again", limit=100)
    assert len(before) == 39
    for found in (moved, back):
        assert [(item.id, item.attributes) for item in found] == [
            (item.id, item.attributes) for item in before
        ]
        np.testing.assert_array_equal([item.vector for item in found], [item.vector for item in before])


async def test_a_collection_is_made_anew_beside_writers(
    engine: Index, packages: Path, root: Path, stack: AsyncExitStack
) -> None:
    config = Config(model_repository=packages, image_roots=(str(root),), default_model="colors")
    gallery = await stack.enter_async_context(opened(config, engine, "colors"))
    engine.create(CollectionSpec("photos", 6, Metric.COSINE, "", SCHEMA))
    engine.upsert("photos", items(root))
    async with aclosing(
        gallery.reembedding.run("photos", "colors", "", in_a_minute(), skip_broken=False)
    ) as steps:
        async for step in steps:
            if step.done == 40 and step.collection is None:
                await gallery.items.delete("photos", ["03"], in_a_minute())
                await gallery.items.delete_matching("photos", Range("number", gte=30), in_a_minute())
                added = NewItem("new", np.ones(6, np.float32), {"uri": str(root / "35.png"), "number": 35})
                await gallery.items.upsert("photos", [added], "", in_a_minute())
    assert [info.spec.name for info in engine.list_collections()] == ["photos"]
    expected = {f"{number:02}": number for number in range(30) if number != 3} | {"new": 35}
    found = engine.scan("photos", limit=100)
    assert {item.id: item.attributes["number"] for item in found} == expected
    for item in found:
        number = expected[item.id]
        np.testing.assert_allclose(item.vector, expected_embedding(PICTURES[number]), rtol=1e-4)
    wanted = Search(
        "photos",
        [file_bytes(PICTURES[35])],
        3,
        SearchOptions(filter=Range("number", gte=20), group_by=GroupBy("number"), recall=1.0),
    )
    (answer,) = (await gallery.searches.search(wanted, in_a_minute())).answers
    assert isinstance(answer, list)
    assert answer[0].id == "new"
