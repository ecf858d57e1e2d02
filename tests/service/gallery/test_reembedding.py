"""A collection made anew by another model, while it is written to, and when that doesn't come off."""

import asyncio
import random
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.config import Config
from service.errors import (
    CollectionBusy,
    DeadlineExpired,
    InvalidImage,
    ModelNotFound,
    NotConfigured,
    Overloaded,
    RequestError,
    VectorMismatch,
)
from service.gallery import journal, reembedding, renewal
from service.gallery.gallery import Gallery
from service.gallery.items import NewItem
from service.gallery.reembedding import Progress
from service.gallery.searches import Search, StoredItem
from service.gallery.writes import Replaced
from service.retrieval.filters import Equals, Range
from service.retrieval.index import CollectionSpec, Item, Metric, Storage
from service.retrieval.schema import AttributeType
from tests.client.pictures import expected_embedding, file_bytes, pixels
from tests.client.waiting import eventually
from tests.packages import EMBEDDING_DIMENSION
from tests.service.gallery.conftest import CountingIndex, in_a_minute, opened

NAME = "photos"
COLORS = np.random.default_rng(3).integers(0, 256, (100, 3)).tolist()


def picture(number: int) -> NDArray[np.uint8]:
    """A picture of its own for each number below 100."""
    red, green, blue = COLORS[number]
    return pixels((red, green, blue))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 100 pictures, `0.png` to `99.png`, and a broken one."""
    root = tmp_path_factory.mktemp("root")
    for number in range(100):
        (root / f"{number}.png").write_bytes(file_bytes(picture(number)))
    (root / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture
async def house(packages: Path, root: Path, index: CountingIndex, stack: AsyncExitStack) -> Gallery:
    """A gallery with both models, and with 40 items of the model `pixels`."""
    config = Config(model_repository=packages, image_roots=(str(root),), default_model="colors")
    gallery = await stack.enter_async_context(opened(config, index, "colors", "pixels"))
    schema = {"uri": AttributeType.STRING, "number": AttributeType.INT}
    spec = CollectionSpec(NAME, 0, Metric.COSINE, "", schema, Storage.FLOAT16)
    await gallery.collections.create_for_model(spec, "pixels", "", in_a_minute())
    await write(gallery, root, {f"{number:03}": number for number in range(40)})
    return gallery


async def write(gallery: Gallery, root: Path, numbers: dict[str, int]) -> None:
    items = [
        NewItem(
            name,
            (root / f"{number}.png").read_bytes(),
            {"uri": str(root / f"{number}.png"), "number": number, "other": "kept"},
        )
        for name, number in numbers.items()
    ]
    written = await gallery.items.upsert(NAME, items, "", in_a_minute())
    assert written.errors == [None] * len(items)


async def write_broken(gallery: Gallery, root: Path, name: str, **attributes: str) -> None:
    image = (root / "0.png").read_bytes()
    await gallery.items.upsert(NAME, [NewItem(name, image, attributes)], "", in_a_minute())


async def finish(gallery: Gallery, *, skip_broken: bool = False, model: str = "colors") -> list[Progress]:
    run = gallery.reembedding.run(NAME, model, "", in_a_minute(), skip_broken=skip_broken)
    async with aclosing(run) as steps:
        return [step async for step in steps]


async def until_only(index: CountingIndex, *names: str) -> None:
    """What was being built is dropped by somebody else, soon."""

    def found() -> list[str]:
        return [info.spec.name for info in index.list_collections()]

    await asyncio.to_thread(eventually, lambda: found() == list(names))
    assert found() == list(names)


def numbers(index: CountingIndex) -> dict[str, object]:
    """Each item's number; its vector must be that of the picture under the colors model."""
    found = index.scan(NAME, limit=1000)
    for item in found:
        number = item.attributes["number"]
        assert isinstance(number, int)
        expected = expected_embedding(picture(number))
        np.testing.assert_allclose(item.vector, expected, atol=2e-3, err_msg=item.id)  # float16
        assert item.attributes["other"] == "kept"
    return {item.id: item.attributes["number"] for item in found}


async def test_all_vectors_are_the_new_models(house: Gallery, index: CountingIndex) -> None:
    before = index.describe(NAME).spec
    assert before.dimension == 8
    steps = await finish(house)
    assert [step.done for step in steps] == [0, 32, 40, 40]
    assert {step.total for step in steps} == {40}
    assert [step.skipped for step in steps] == [[]] * 4
    made = steps[-1].collection
    assert made is not None
    assert made == index.describe(NAME)
    assert (made.count, made.spec.dimension) == (40, EMBEDDING_DIMENSION)
    assert made.spec.fingerprint != before.fingerprint
    assert (made.spec.attributes, made.spec.storage) == (before.attributes, before.storage)
    assert numbers(index) == {f"{n:03}": n for n in range(40)}
    await until_only(index, NAME)
    found = await house.searches.search(Search(NAME, [file_bytes(picture(7))], 1), in_a_minute())
    assert found.model is not None
    assert found.model.manifest.name == "colors"
    assert not isinstance(found.answers[0], RequestError)
    assert found.answers[0][0].id == "007"


async def test_while_it_is_done_the_old_one_answers(house: Gallery, index: CountingIndex) -> None:
    run = house.reembedding.run(NAME, "colors", "", in_a_minute(), skip_broken=False)
    async with aclosing(run) as steps:
        async for step in steps:
            if step.collection is None:
                found = await house.searches.search(Search(NAME, [file_bytes(picture(7))], 1), in_a_minute())
                assert found.model is not None
                assert found.model.manifest.name == "pixels"
                assert [info.spec.name for info in await house.collections.list_all(in_a_minute())] == [NAME]


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_written_meanwhile_is_not_lost(
    house: Gallery, index: CountingIndex, root: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small pages and batches, so that writes fall before, into and behind what was read."""
    monkeypatch.setattr(renewal, "_PAGE_ITEMS", 7)
    monkeypatch.setattr(renewal, "_AGAIN_ITEMS", 5)
    monkeypatch.setattr(reembedding, "_LAST_ITEMS", 2)
    house.reembedding._batch_items = 3
    chance = random.Random(seed)
    expected = {f"{n:03}": n for n in range(40)}

    async def change() -> None:
        for _ in range(chance.randrange(4)):
            match chance.randrange(4):
                case 0:
                    ids = [f"{chance.randrange(60):03}" for _ in range(3)]
                    await house.items.delete(NAME, ids, in_a_minute())
                    for name in ids:
                        expected.pop(name, None)
                case 1:
                    low = chance.randrange(100)
                    within = Range("number", gte=low, lt=low + 8)
                    await house.items.delete_matching(NAME, within, in_a_minute())
                    for name in [name for name, number in expected.items() if low <= number < low + 8]:
                        del expected[name]
                case _:
                    written = {f"{chance.randrange(60):03}": chance.randrange(100) for _ in range(4)}
                    await write(house, root, written)
                    expected.update(written)

    run = house.reembedding.run(NAME, "colors", "", in_a_minute(), skip_broken=False)
    changes = 0
    async with aclosing(run) as steps:
        async for step in steps:
            if step.collection is None and changes < 25:  # or it might go on for ever
                changes += 1
                await change()
    assert changes > 8
    assert numbers(index) == expected


async def test_writes_that_come_at_the_last_moment_wait_and_are_the_new_models(
    house: Gallery, index: CountingIndex, root: Path
) -> None:
    """Writers beside the whole of it; each write is acknowledged, so each must be there."""
    done = asyncio.Event()
    expected = {f"{n:03}": n for n in range(40)}

    async def go_on_writing(offset: int) -> None:
        turn = 0
        while not done.is_set():
            name, number = f"{offset + turn % 20:03}", (offset + turn) % 100
            await write(house, root, {name: number})
            expected[name] = number
            turn += 1
            await asyncio.sleep(0)

    writers = [asyncio.create_task(go_on_writing(offset)) for offset in (0, 20, 40)]
    await asyncio.sleep(0.05)
    await finish(house)
    await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*writers)
    assert numbers(index) == expected


async def test_searches_beside_it_are_always_answered_by_one_model(house: Gallery) -> None:
    """Never one model's query among another's vectors, whose dimensions differ here."""
    done = asyncio.Event()
    models: list[str] = []

    async def go_on_searching(number: int) -> None:
        image = file_bytes(picture(number))
        while not done.is_set():
            found = await house.searches.search(Search(NAME, [image, StoredItem("000")], 1), in_a_minute())
            by_image, by_id = found.answers
            assert isinstance(by_image, list), by_image
            assert isinstance(by_id, list), by_id
            assert by_image[0].score == pytest.approx(1.0, abs=2e-3)
            assert found.model is not None
            models.append(found.model.manifest.name)

    searchers = [asyncio.create_task(go_on_searching(number)) for number in (3, 14, 15)]
    for model in ("colors", "pixels", "colors"):
        await finish(house, model=model)
    await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*searchers)
    assert set(models) == {"colors", "pixels"}


async def test_a_query_of_the_old_model_never_meets_the_new_ones_vectors(
    house: Gallery, index: CountingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another collection of the same dimension takes the name while a query is being embedded."""
    embedder = house.searches._embedder
    vectors = embedder.vectors

    async def slowly(*arguments: Any, **options: Any) -> Any:
        found = await vectors(*arguments, **options)
        await house.collections.drop(NAME, in_a_minute())
        await house.collections.create(CollectionSpec(NAME, 8, Metric.COSINE, "another's"), in_a_minute())
        index.upsert(NAME, [Item("other", np.ones(8, np.float32))])
        return found

    monkeypatch.setattr(embedder, "vectors", slowly)
    with pytest.raises(
        VectorMismatch, match='takes vectors of fingerprint "another\'s", and no loaded model'
    ):
        await house.searches.search(Search(NAME, [file_bytes(picture(3))], 1), in_a_minute())


async def test_what_was_embedded_before_is_not_written_after(
    house: Gallery, index: CountingIndex, root: Path
) -> None:
    item = NewItem(
        "late", (root / "1.png").read_bytes(), {"uri": str(root / "1.png"), "number": 1, "other": "kept"}
    )
    prepared = await house.items.prepare(NAME, [item], "", in_a_minute())
    await finish(house)
    with pytest.raises(Replaced):
        await house.items.commit(prepared, in_a_minute())
    await house.items.upsert(NAME, [item], "", in_a_minute())
    assert numbers(index)["late"] == 1


BROKEN = {
    "no uri": ({}, "has no attribute 'uri'"),
    "no image": ({"uri": "{root}/broken.png"}, "not an image"),
    "nothing there": ({"uri": "{root}/absent.png"}, "can't be read: No such file"),
    "outside": ({"uri": "/etc/passwd"}, "lies outside the server's image_roots"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_image_ends_it_and_changes_nothing(
    house: Gallery, index: CountingIndex, root: Path, case: str
) -> None:
    attributes, words = BROKEN[case]
    await write_broken(house, root, "005b", **{k: v.format(root=root) for k, v in attributes.items()})
    before = index.scan(NAME, limit=100)
    with pytest.raises(InvalidImage, match=words) as caught:
        await finish(house)
    assert str(caught.value).startswith("item '005b': ")
    after = index.scan(NAME, limit=100)
    assert [item.id for item in after] == [item.id for item in before]
    np.testing.assert_array_equal([item.vector for item in after], [item.vector for item in before])
    await until_only(index, NAME)


async def test_broken_ones_are_left_out_where_the_caller_says_so(
    house: Gallery, index: CountingIndex, root: Path
) -> None:
    for case, (attributes, _) in BROKEN.items():
        await write_broken(house, root, case, **{k: v.format(root=root) for k, v in attributes.items()})
    steps = await finish(house, skip_broken=True)
    skipped = [each for step in steps for each in step.skipped]
    assert {name for name, _ in skipped} == set(BROKEN)
    for name, error in skipped:
        assert BROKEN[name][1] in str(error)
    assert steps[-1].done == 44
    assert index.count(NAME) == 40


async def test_an_item_that_breaks_meanwhile_does_not_stay_as_it_was(
    house: Gallery, index: CountingIndex, root: Path
) -> None:
    run = house.reembedding.run(NAME, "colors", "", in_a_minute(), skip_broken=True)
    async with aclosing(run) as steps:
        async for step in steps:
            if step.done == 40 and step.collection is None:
                await write_broken(house, root, "003")
    assert step.skipped[0][0] == "003"
    assert index.count(NAME) == 39


async def test_leaving_it_changes_nothing(house: Gallery, index: CountingIndex) -> None:
    spec = index.describe(NAME).spec
    run = house.reembedding.run(NAME, "colors", "", in_a_minute(), skip_broken=False)
    async with aclosing(run) as steps:
        async for step in steps:
            if step.done:
                break
    await until_only(index, NAME)
    assert index.describe(NAME).spec == spec
    assert (await finish(house))[-1].collection is not None  # and it can be begun again


async def test_one_at_a_time(house: Gallery) -> None:
    run = house.reembedding.run(NAME, "colors", "", in_a_minute(), skip_broken=False)
    async with aclosing(run) as steps:
        await anext(steps)
        with pytest.raises(CollectionBusy, match="'photos' is being built anew already"):
            await finish(house)


async def test_a_collection_that_is_made_anew_meanwhile_is_left_alone(
    house: Gallery, index: CountingIndex
) -> None:
    other = CollectionSpec(NAME, 2, Metric.L2, "", {"uri": AttributeType.STRING})
    run = house.reembedding.run(NAME, "colors", "", in_a_minute(), skip_broken=False)
    async with aclosing(run) as steps:
        await anext(steps)
        await house.collections.drop(NAME, in_a_minute())
        await house.collections.create(other, in_a_minute())
        with pytest.raises(CollectionBusy, match="dropped or replaced"):
            [step async for step in steps]
    assert index.describe(NAME).spec == other
    await until_only(index, NAME)


async def test_too_many_writes_end_it(
    house: Gallery, index: CountingIndex, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_IDS", 5)
    run = house.reembedding.run(NAME, "colors", "", in_a_minute(), skip_broken=False)
    async with aclosing(run) as steps:
        while (await anext(steps)).done < 40:
            pass
        await write(house, root, {f"{n:03}": n for n in range(10)})
        with pytest.raises(Overloaded, match="it is as it was: try again"):
            [step async for step in steps]
    assert index.describe(NAME).spec.dimension == 8


async def test_a_deadline_ends_it(house: Gallery, index: CountingIndex) -> None:
    now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExpired):
        async with aclosing(house.reembedding.run(NAME, "colors", "", now, skip_broken=False)) as steps:
            [step async for step in steps]
    assert index.describe(NAME).spec.dimension == 8


@pytest.mark.parametrize(
    ("schema", "words"),
    [({}, "doesn't declare it"), ({"uri": AttributeType.INT}, "declares it as int")],
)
async def test_only_what_declares_where_its_images_are(
    house: Gallery, index: CountingIndex, schema: dict[str, AttributeType], words: str
) -> None:
    index.create(CollectionSpec("bare", 2, Metric.L2, "", schema))
    with pytest.raises(VectorMismatch, match=words):
        async with aclosing(
            house.reembedding.run("bare", "colors", "", in_a_minute(), skip_broken=True)
        ) as steps:
            await anext(steps)


async def test_an_unknown_model_and_a_server_without_roots(house: Gallery, gallery: Gallery) -> None:
    with pytest.raises(ModelNotFound, match="colors"):
        await finish(house, model="nobody's")
    with pytest.raises(NotConfigured, match="--image-root"):
        await finish(gallery)


async def test_an_empty_collection_gets_the_new_model(house: Gallery, index: CountingIndex) -> None:
    await house.items.delete_matching(NAME, Range("number", gte=0), in_a_minute())
    steps = await finish(house)
    assert [(step.done, step.total) for step in steps] == [(0, 0), (0, 0)]
    assert index.describe(NAME).spec.dimension == EMBEDDING_DIMENSION
    assert index.count(NAME, Equals("number", 1)) == 0


async def test_items_of_own_vectors_are_embedded_too(
    house: Gallery, index: CountingIndex, root: Path
) -> None:
    spec = CollectionSpec("external", 2, Metric.COSINE, "", {"uri": AttributeType.STRING})
    index.create(spec)
    index.upsert("external", [Item("a", np.ones(2, np.float32), {"uri": (root / "5.png").as_uri()})])
    async with aclosing(house.reembedding.run("external", "", "", in_a_minute(), skip_broken=False)) as steps:
        [step async for step in steps]
    [item] = index.get("external", ["a"])
    np.testing.assert_allclose(item.vector, expected_embedding(picture(5)), rtol=1e-5)


async def test_small_rooms_for_images_are_enough(
    packages: Path, root: Path, index: CountingIndex, stack: AsyncExitStack
) -> None:
    """Batches keep to what may be in at a time; a file that never could be is that item's error."""
    config = Config(
        model_repository=packages,
        image_roots=(str(root),),
        max_batch_size=1,
        queue_capacity=4,
        max_images_per_request=2,
        max_message_bytes=64 * 1024,
        max_arriving_bytes=64 * 1024,
        max_queued_bytes=128 * 1024,
    )
    gallery = await stack.enter_async_context(opened(config, index, "colors"))
    index.create(CollectionSpec(NAME, 2, Metric.COSINE, "", {"uri": AttributeType.STRING}))
    (root / "large.png").write_bytes(file_bytes(picture(1)) + bytes(70_000))
    names = [*(f"{number}.png" for number in range(20)), "large.png"]
    index.upsert(NAME, [Item(name, np.ones(2, np.float32), {"uri": str(root / name)}) for name in names])
    steps = await finish(gallery, skip_broken=True)
    ((name, error),) = [each for step in steps for each in step.skipped]
    assert name == "large.png"
    assert "expected at most 65,536" in str(error)
    assert index.count(NAME) == 20


async def test_only_some_at_a_time(house: Gallery, index: CountingIndex) -> None:
    schema = {"uri": AttributeType.STRING}
    async with AsyncExitStack() as running:
        for number in range(4):
            index.create(CollectionSpec(f"c{number}", 2, Metric.COSINE, "", schema))
            run = house.reembedding.run(f"c{number}", "colors", "", in_a_minute(), skip_broken=False)
            await anext(await running.enter_async_context(aclosing(run)))
        with pytest.raises(Overloaded, match="4 collections are being made anew; expected at most 4"):
            await finish(house)
    assert (await finish(house))[-1].collection is not None
