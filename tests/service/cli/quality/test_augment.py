"""fovea index augment, over a real server: the vectors by hand, and what searches the new collection."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fovea import Client, Item
from numpy.typing import NDArray

from service.cli.quality.augment import augmented
from tests.client.pictures import of_class
from tests.packages import write_colors
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea

SOURCE = ("--collection", "plain")


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client
        names = {each.name for each in client.collections()}
        for name in names & {"plain", "augmented"}:
            client.drop_collection(name)


def by_hand(vectors: NDArray[np.float64], row: int, neighbors: int, alpha: float) -> NDArray[np.float64]:
    cosines = vectors @ vectors[row]
    cosines[row] = -np.inf
    nearest = np.argsort(-cosines)[:neighbors]
    total = vectors[row] + (np.maximum(cosines[nearest], 0)[:, None] ** alpha * vectors[nearest]).sum(axis=0)
    return np.asarray(total / np.linalg.norm(total))


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_each_vector_takes_in_its_neighbours(fovea_command: Fovea, client: Client, alpha: float) -> None:
    vectors = np.random.default_rng(1).normal(size=(150, 6)) + 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    client.create_collection("plain", dimension=6, attributes={"group": "int", "name": "string"})
    client.upsert(
        "plain",
        [
            Item(f"{row:03d}", vector=vectors[row], attributes={"group": row % 3, "more": 0.5})
            for row in range(150)
        ],
    )
    done = fovea_command(
        "index", "augment", *SOURCE, "--into", "augmented", "--neighbors", "4", "--alpha", str(alpha)
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == "collection 'augmented' has 150 images of 'plain', augmented\n"
    made = client.collection("augmented")
    assert (made.attributes, made.metric) == ({"group": "int", "name": "string"}, "cosine")
    items = list(client.scan("augmented", include_vectors=True))
    assert [item.id for item in items] == [f"{row:03d}" for row in range(150)]
    for row, item in enumerate(items):
        assert item.attributes == {"group": row % 3, "more": 0.5}
        assert item.vector == pytest.approx(by_hand(vectors, row, 4, alpha), abs=1e-5)
    first = next(client.scan("plain", include_vectors=True))
    assert first.vector == pytest.approx(vectors[0], abs=1e-6)


def test_pictures_of_the_same_model_search_it(fovea_command: Fovea, client: Client) -> None:
    client.create_collection("plain", model="colors", storage="float16")
    client.upsert("plain", [Item(f"{n}", image=of_class(n, 100 + 3 * n)) for n in range(30)])
    done = fovea_command("index", "augment", *SOURCE, "--into", "augmented", "--neighbors", "3")
    assert done.exit_code == 0, done.output
    plain, made = client.collection("plain"), client.collection("augmented")
    assert (made.fingerprint, made.model, made.storage) == (plain.fingerprint, "colors", "float16")
    found = client.search("augmented", image=of_class(1, 150), top_k=10)
    assert {int(each.id) % 3 for each in found} == {1}
    assert len(client.search("augmented", vector=client.embed(of_class(1, 150)))) == 10


def test_alone_or_opposite_nothing_changes() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    np.testing.assert_allclose(augmented(vector, [], 3), vector)
    np.testing.assert_allclose(augmented(vector, [(-vector, -1.0)], 3), vector)
    np.testing.assert_allclose(augmented(vector, [(-vector, -1.0)], 0), vector)


def test_what_is_refused(fovea_command: Fovea, client: Client) -> None:
    client.create_collection("plain", dimension=2, metric="l2")
    itself = fovea_command("index", "augment", *SOURCE, "--into", "plain")
    assert itself.exit_code == 2
    assert "--into is 'plain', the collection itself" in itself.stderr
    metric = fovea_command("index", "augment", *SOURCE, "--into", "augmented")
    assert metric.exit_code == 1
    assert "collection 'plain' has the metric l2; augmentation is for cosine" in metric.stderr
    assert "augmented" not in {each.name for each in client.collections()}

    client.create_collection("augmented", dimension=2)
    client.upsert("augmented", [Item("kept", vector=[1, 0])])
    taken = fovea_command("index", "augment", "--collection", "augmented", "--into", "plain")
    assert taken.exit_code == 1
    assert "plain" in taken.stderr
    assert client.collection("plain").metric == "l2"


def test_if_it_fails_there_is_no_new_collection(fovea_command: Fovea, tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", "--max-top-k", "5") as server,
        Client(server.address) as client,
    ):
        client.create_collection("plain", dimension=2)
        client.upsert("plain", [Item(str(n), vector=[1, n]) for n in range(20)])
        done = fovea_command("index", "augment", *SOURCE, "--into", "augmented", "--address", server.address)
        assert done.exit_code == 1
        assert "top_k is 10; expected at most 5" in done.stderr
        assert [each.name for each in client.collections()] == ["plain"]
