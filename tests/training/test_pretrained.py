"""Published weights: from the cache, over HTTP, from an installed package."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training import pretrained
from training.data import digits
from training.errors import MissingExtra, SettingError, WeightsError
from training.given_options import check_given
from training.models import ARCHITECTURES, Classifier, Published, architecture
from training.options import FitOptions, resolve
from training.pretrained import download, imagenet_labels, load_pretrained
from training.setup import build_model

ARCH = "resnet20-cifar"


@dataclass(frozen=True)
class Shelf:
    """A server of weights on this machine.

    Attributes:
        folder: what it serves.
        url: of that.
        asked: the paths that were asked for.
    """

    folder: Path
    url: str
    asked: list[str]

    def put(self, weights: dict[str, Tensor], digest: str | None = None) -> str:
        """Save weights under a name with their checksum, or with a given one; returns the URL."""
        file = self.folder / "new.pth"
        torch.save(weights, file)
        digest = digest or hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        return f"{self.url}/{file.rename(self.folder / f'net-{digest}.pth').name}"


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    folder = tmp_path / "shelf"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield Shelf(folder, f"http://127.0.0.1:{server.server_port}", asked)
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's cache, empty; proxies would be asked for this machine otherwise."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def publish(monkeypatch: pytest.MonkeyPatch, url: str, arch: str = ARCH, **changes: object) -> None:
    """Let an architecture have weights at that URL."""
    published = replace(
        Published(
            version="v1",
            source="a test",
            licence="CC0-1.0",
            resize_size=32,
            interpolation="bilinear",
            classes=10,
            url=url,
        ),
        **changes,  # type: ignore[arg-type] # each test names fields of Published
    )
    monkeypatch.setitem(ARCHITECTURES, arch, replace(architecture(arch), published=(published,)))


def network(classes: int = 10, arch: str = ARCH) -> Classifier:
    return architecture(arch).build(classes)


def same(model: Classifier, weights: dict[str, Tensor], leave_out: tuple[str, ...] = ()) -> bool:
    state = model.state_dict()
    return all(
        torch.equal(state[name], value) for name, value in weights.items() if not name.startswith(leave_out)
    )


def test_is_downloaded_once_and_loaded(shelf: Shelf, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network().state_dict()
    url = shelf.put(weights)
    publish(monkeypatch, url)
    said: list[str] = []
    for _ in range(2):
        model = network()
        loaded = load_pretrained(model, ARCH, say=said.append)
        assert same(model, weights)
        assert loaded.took_head
    name = url.rpartition("/")[2]
    assert (shelf.asked, said) == ([f"/{name}"], [f"downloading {url}"])
    assert [path.name for path in hub.iterdir()] == [name]
    digest = hashlib.sha256((hub / name).read_bytes()).hexdigest()
    assert loaded.described == f"a test, {name}, SHA-256 {digest}"


def test_the_number_of_classes_adapts(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network().state_dict()
    publish(monkeypatch, shelf.put(weights))
    model = network(classes=3)
    head = model.head.weight.clone()
    assert not load_pretrained(model, ARCH).took_head
    assert same(model, weights, leave_out=("fc.",))
    assert torch.equal(model.head.weight, head)


def test_auxiliary_heads_adapt_too(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network(5, "googlenet").state_dict()
    publish(monkeypatch, shelf.put(weights), "googlenet", classes=5)
    model = network(2, "googlenet")
    load_pretrained(model, "googlenet")
    assert same(model, weights, leave_out=("fc.", "aux1.fc2.", "aux2.fc2."))
    assert model.state_dict()["aux1.fc2.weight"].shape == (2, 1024)


def test_the_background_class_is_left_out(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network(11).state_dict()
    publish(monkeypatch, shelf.put(weights), label_offset=1)
    model = network(10)
    assert load_pretrained(model, ARCH).took_head
    assert torch.equal(model.head.weight, weights["fc.weight"][1:])
    assert torch.equal(model.head.bias, weights["fc.bias"][1:])


def test_a_wrong_checksum_is_refused_and_not_kept(shelf: Shelf, hub: Path) -> None:
    url = shelf.put(network().state_dict(), digest="deadbeef")
    with pytest.raises(WeightsError, match=r"isn't the file that its name says: .*deadbeef.*put it at"):
        download(url)
    assert list(hub.iterdir()) == []


def test_a_file_in_the_cache_with_a_wrong_checksum_is_refused(shelf: Shelf, hub: Path) -> None:
    url = shelf.put(network().state_dict())
    path = download(url)
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=rf"{path.name}: its SHA-256 is .*expected .* as its name says"):
        download(url)


def test_without_network_the_error_says_where_to_put_the_file(
    shelf: Shelf, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = network().state_dict()
    name = shelf.put(weights).rpartition("/")[2]
    url = f"http://127.0.0.1:1/{name}"  # a port that nobody listens on
    publish(monkeypatch, url)
    with pytest.raises(WeightsError) as caught:
        load_pretrained(network(), ARCH)
    assert url in str(caught.value)
    assert f"download it elsewhere and put it at {hub / name}" in str(caught.value)
    # That works.
    hub.mkdir(parents=True, exist_ok=True)
    (shelf.folder / name).rename(hub / name)
    model = network()
    load_pretrained(model, ARCH)
    assert same(model, weights)


def test_a_missing_file_is_an_error_too(shelf: Shelf) -> None:
    with pytest.raises(WeightsError, match=r"gone-12345678\.pth can't be downloaded: HTTP Error 404"):
        download(f"{shelf.url}/gone-12345678.pth")


def test_a_url_without_a_checksum_is_refused() -> None:
    with pytest.raises(SettingError, match=r"'net\.pth' has no checksum in its name"):
        download("http://127.0.0.1:1/net.pth")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "", package=("no_such_package", "models/net-12345678.pth", "no-such-package"))
    with pytest.raises(MissingExtra, match=r"no-such-package.*fovea-serving\[pretrained\]"):
        load_pretrained(network(), ARCH)


def test_an_architecture_without_weights_says_so() -> None:
    with pytest.raises(SettingError, match="no weights are published for resnet20-cifar"):
        load_pretrained(network(), ARCH)
    with pytest.raises(SettingError, match=r"resnet50 has no published weights 'v3'; expected v2 or v1"):
        architecture("resnet50").published_version("v3")


def test_a_run_starts_from_the_version_asked_for_and_keeps_to_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    weights = {version: network().state_dict() for version in ("v2", "v1")}
    versions: list[Published] = []
    for version, state in weights.items():
        publish(monkeypatch, shelf.put(state), version=version)
        versions += architecture(ARCH).published
    monkeypatch.setitem(ARCHITECTURES, ARCH, replace(architecture(ARCH), published=tuple(versions)))
    for asked, version in (("", "v2"), ("v1", "v1")):
        options = FitOptions("digits", arch=ARCH, pretrained=True, pretrained_version=asked)
        config = resolve(options, architecture(ARCH), digits())
        assert same(build_model(config, lambda _line: None), weights[version])
        check_given({"pretrained_version": version}, config)
    with pytest.raises(SettingError, match="--pretrained-version is v2, the run's is v1"):
        check_given({"pretrained_version": "v2"}, config)


def test_versions_have_their_own_sizes() -> None:
    design = architecture("resnet50")
    assert (design.published_version().version, design.published_version().resize_size) == ("v2", 232)
    assert design.published_version("v1").resize_size == 256


def test_every_published_file_has_a_checksum_in_its_name() -> None:
    files = [published.file for design in ARCHITECTURES.values() for published in design.published]
    assert len(files) == len(set(files)) == 15
    assert all(pretrained._digest_in(file) for file in files)


def test_imagenets_labels() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert (labels[0], labels[985], labels[999]) == ("tench", "daisy", "toilet tissue")
