"""fovea index add --engine ray: a real local Ray embeds, and the server only stores."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from fovea import Client, Collection, FoveaError, Unavailable

from service.cli.bulk import ray_engine
from service.cli.bulk.entry import Entry, digest
from service.cli.bulk.look import Rules
from service.cli.bulk.ray_stages import Embedding, Looking, Reading, Writing, column
from service.cli.bulk.writer import Work
from service.manifest import read_manifest
from tests.client.pictures import BROKEN, expected_embedding, file_bytes, of_class, pixels
from tests.packages import write_colors, write_not_finite
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea

RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray isn't installed")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The same as the server's `colors`."""
    return write_colors(tmp_path / "packages")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """60 pictures, 20 of them twice, and a broken one."""
    folder = tmp_path / "album" / "red"
    folder.mkdir(parents=True)
    for number in range(60):
        (folder / f"{number:02}.png").write_bytes(file_bytes(of_class(number, 60 + number)))
        if number < 20:
            (folder / f"{number:02}-copy.png").write_bytes(file_bytes(of_class(number, 60 + number)))
    (folder / "broken.jpg").write_bytes(BROKEN)
    return folder.parent


@RAY
def test_ray_embeds_what_is_missing(
    server: ServerProcess,
    client: Client,
    collection: str,
    album: Path,
    package: Path,
    embedded: Callable[[], int],
) -> None:
    command = [
        sys.executable, "-m", "service", "index", "add", str(album), "--collection", collection,
        "--address", server.address, "--engine", "ray", "--package", str(package), "--actors", "1",
    ]  # fmt: skip
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(
        f"indexed 80 images of {album}, 20 of them with the vector of the same content; collection "
    )
    assert done.stderr.splitlines()[-2:] == [
        "1 of 81 files weren't indexed:",
        "red/broken.jpg: the image is broken or cut short: Truncated File Read",
    ]
    made = client.collection(collection)
    assert (made.model, made.attributes["sha256"]) == ("colors", "string")
    for item in client.scan(collection, include_vectors=True):
        number = int(Path(item.id).name[:2])
        assert item.vector is not None
        np.testing.assert_allclose(item.vector, expected_embedding(of_class(number, 60 + number)), atol=1e-6)
        assert item.attributes["label"] == "red"
    assert embedded() == 0

    # Either engine knows what the other has done.
    again = command[: command.index("--engine")]
    done = subprocess.run(again, env=os.environ, capture_output=True, text=True, timeout=60)
    assert "indexed 0 images" in done.stdout
    assert "80 were there already" in done.stdout


def works(folder: Path, contents: list[bytes]) -> list[Work]:
    found = []
    for number, content in enumerate(contents):
        place = folder / f"{number}.png"
        place.write_bytes(content)
        found.append(Work(place.name, place, b"", digest(content), {"n": number}))
    return found


def test_the_stages_of_the_pipeline(
    server: ServerProcess, client: Client, collection: str, package: Path, tmp_path: Path
) -> None:
    fingerprint = read_manifest(package).fingerprint("fp32")
    there = client.create_collection(collection, dimension=24, fingerprint=fingerprint)
    images = [of_class(number, 60 + number) for number in range(40)]
    some = works(tmp_path, [*map(file_bytes, images), BROKEN, file_bytes(images[0])])
    some[-1].place.write_bytes(b"changed")  # type: ignore[union-attr]  # it is a path
    read = Reading(package)({"work": column(list(some))})
    assert read["pixels"].shape == (42, 8, 8, 3)
    embedded = Embedding(package, "fp32", 1)(read)
    written = Writing(server.address, 30.0, there)(embedded)
    assert list(written["id"]) == [work.id for work in some]
    assert list(written["code"][:40]) == [""] * 40
    assert list(written["code"][40:]) == ["INVALID_ARGUMENT"] * 2
    assert "was written while it was being indexed" in written["message"][41]
    assert set(written["fatal"]) == {""}
    stored = {item.id: item for item in client.scan(collection, include_vectors=True)}
    assert len(stored) == 40
    for number, image in enumerate(images):
        vector = stored[f"{number}.png"].vector
        assert vector is not None
        np.testing.assert_allclose(vector, expected_embedding(image), atol=1e-6)


def test_values_that_are_not_finite_are_an_images_own(tmp_path: Path) -> None:
    package = write_not_finite(tmp_path / "packages")
    images = [pixels((0, 0, 0)), pixels((9, 9, 9))]
    read = Reading(package)({"work": column(list(works(tmp_path, list(map(file_bytes, images)))))})
    done = Embedding(package, "fp32", 1)(read)
    np.testing.assert_allclose(done["vector"][1], expected_embedding(images[1]), atol=1e-6)
    assert list(done["error"]) == ["the model gave values that aren't finite for this image", ""]


def test_a_server_that_is_gone_ends_it(tmp_path: Path) -> None:
    there = Collection("x", 24, "cosine", "f:fp32", 1, "", "")
    (work,) = works(tmp_path, [file_bytes(of_class(0))])
    nobody = "127.0.0.1:1"
    looked = Looking(nobody, 2.0, there, Rules())({"entry": column([Entry(work.id, work.place, {})])})
    assert isinstance(looked["work"][0], Unavailable)
    batch = {
        "work": column([work]), "vector": np.ones((1, 24), np.float32), "error": column([""]),
    }  # fmt: skip
    written = Writing(nobody, 2.0, there)(batch)
    assert written["fatal"][0]
    assert isinstance(looked["work"][0], FoveaError)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "ray"), "--engine ray needs --package"),
        (("--actors", "2"), "belong to --engine ray"),
        (("--ray-address", "auto"), "belong to --engine ray"),
    ],
)
def test_options_that_do_not_fit(
    fovea_command: Fovea, album: Path, options: tuple[str, ...], words: str
) -> None:
    done = fovea_command("index", "add", album, *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_packages_that_do_not_fit(
    fovea_command: Fovea, client: Client, collection: str, album: Path, tmp_path: Path
) -> None:
    run = ("index", "add", album, "--collection", collection, "--engine", "ray", "--package")
    done = fovea_command(*run, tmp_path)
    assert done.exit_code == 1
    assert "manifest.json: can't be read" in done.stderr
    client.create_collection(collection)
    other = write_colors(tmp_path / "packages", "other")
    done = fovea_command(*run, other)
    assert done.exit_code == 1
    assert f"has vectors of fingerprint {client.collection(collection).fingerprint}" in done.stderr
    assert client.count(collection) == 0


def test_without_ray_it_says_what_to_install(
    fovea_command: Fovea, collection: str, album: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = fovea_command(
        "index", "add", album, "--collection", collection, "--engine", "ray", "--package", package
    )
    assert done.exit_code == 1
    assert "pip install 'fovea-serving[ray]'" in done.stderr


def test_a_start_that_took_too_long_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine: Ray gives its processes 30 s, and then raises an exception of no class of its own."""
    ray = pytest.importorskip("ray")
    starts: list[dict[str, object]] = []

    def late(**options: object) -> None:
        starts.append(options)
        if len(starts) != 2:
            raise Exception("The current node timed out during startup. This could ...")

    monkeypatch.setattr(ray, "init", late)
    ray_engine._start(ray, "local", {"num_cpus": 2})
    assert [start["num_cpus"] for start in starts] == [2, 2]
    with pytest.raises(click.ClickException, match="Ray didn't start: The current node timed out"):
        ray_engine._start(ray, "local", {})
    assert len(starts) == 4


@RAY
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, of its own settings
@pytest.mark.parametrize(("address", "wait_s"), [(None, "120"), ("127.0.0.1:1", "set before")])
def test_ray_has_longer_to_start_here(
    monkeypatch: pytest.MonkeyPatch, address: str | None, wait_s: str
) -> None:
    name = "RAY_gcs_server_port_wait_time_s"
    monkeypatch.setenv(name, "set before")
    if address is None:
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray_engine, "_start", lambda *_: None)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 3.0})
    with ray_engine._running(address) as cpus:
        assert (cpus, os.environ[name]) == (3, wait_s)
