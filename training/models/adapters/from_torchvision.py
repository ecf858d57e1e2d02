"""torchvision's networks: `torchvision:alexnet`, `torchvision:vgg16`."""

from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.errors import MissingExtra, SettingError, UnknownArchitecture
from training.models.adapters.library_classifier import LibraryClassifier, as_maps
from training.models.architecture import Architecture, Channels, Published

# Their forward gives auxiliary logits too, which these names of this package handle.
_OWN = {"googlenet": "googlenet", "inception_v3": "inception-v3"}


class TorchvisionClassifier(LibraryClassifier):
    """A network of torchvision, taken apart before its pooling.

    Its children are applied in turn, as nearly every forward there does; whether that is so is checked.

    Args:
        name: torchvision's.
        classes: logits.
        input_size: of its usual input.

    Raises:
        UnknownArchitecture: its forward is more than its children in turn.
    """

    def __init__(self, name: str, classes: int, input_size: int) -> None:
        network = _torchvision().models.get_model(name, weights=None, num_classes=classes)
        linear = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        head = linear[-1] if linear else ""
        trunk, rest = _parts(network, head)
        # The dropout right before the head is `Classifier`'s own, so that it can be set.
        before = network.get_submodule(rest[-1]) if rest else None
        if isinstance(before, nn.Dropout):
            rest.pop()
        super().__init__(f"torchvision:{name}", network, head, partial(_pooled, network, tuple(rest)), 0)
        if isinstance(before, nn.Dropout):
            self.dropout = before.p
        self._trunk_names = tuple(trunk)
        self._check(name, input_size)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, feature_channels, h, w]."""
        class_tokens = int(hasattr(self.network, "class_token"))
        return as_maps(self._trunk_output(x), self.feature_channels, class_tokens)

    def features(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → pooled float32 [batch, embedding_dimension]."""
        pooled: Tensor = self.pool(self._trunk_output(x))
        return pooled

    def _trunk_output(self, x: Tensor) -> Tensor:
        if hasattr(self.network, "class_token"):
            tokens = self.network._process_input(x)
            start = self.network.class_token.expand(len(x), -1, -1)
            encoded: Tensor = self.network.encoder(torch.cat([start, tokens], dim=1))
            return encoded
        for name in self._trunk_names:
            x = self.network.get_submodule(name)(x)
        # densenet's last activation is a function between its children.
        return F.relu(x) if type(self.network).__name__ == "DenseNet" else x

    def _check(self, name: str, input_size: int) -> None:
        """Compare with the library's own forward on noise; learn how many channels the trunk gives."""
        like = next(self.parameters())
        draw = None if like.is_meta else torch.Generator().manual_seed(0)
        noise = torch.randn(1, 3, input_size, input_size, generator=draw, device=like.device)
        self.eval()
        with torch.no_grad():
            whole, output = self.network(noise), self._trunk_output(noise)
            parts = self.pool(output)
        self.train()
        if whole.shape != parts.shape or not (like.is_meta or torch.allclose(whole, parts, 1e-3, 1e-4)):
            raise UnknownArchitecture(
                f"torchvision:{name} does more than apply its parts in turn, so it can't be adapted; "
                "timm: may have the same network"
            )
        if output.ndim == 3:
            self.feature_channels = output.shape[2]
        else:
            # Of a picture whose sides differ from the number of channels.
            self.feature_channels = output.shape[1]
            if not like.is_meta:
                self.simplify_pool(output)


def torchvision_architecture(name: str) -> Architecture:
    """What torchvision knows of one of its networks.

    Raises:
        UnknownArchitecture: torchvision has no classifier of that name; lists similar ones.
        MissingExtra: torchvision can't be imported.
    """
    models = _torchvision().models
    known = models.list_models(module=models)
    if name in _OWN:
        raise UnknownArchitecture(
            f"torchvision:{name} has auxiliary heads, which only {_OWN[name]} trains; use that, it loads the "
            "same weights"
        )
    if name not in known:
        similar = [other for other in known if other.startswith(name[:4])] or known
        raise UnknownArchitecture(
            f"torchvision has no classifier {name!r}; it has {', '.join(similar[:12])}"
            f"{' …' if len(similar) > 12 else ''}"
        )
    weights = models.get_model_weights(name)
    usual = weights.DEFAULT.transforms()
    size = usual.crop_size[0]
    # The default first; VGG's weights without a head have no transforms' sizes of their own.
    entries = sorted(weights, key=lambda entry: entry is not weights.DEFAULT)
    entries = [entry for entry in entries if len(entry.meta.get("categories") or ()) == 1000]
    return Architecture(
        name=f"torchvision:{name}",
        build=partial(_build, name, size),
        input_size=size,
        resize_size=usual.resize_size[0],
        interpolation=usual.interpolation.value,
        mean=_channels(usual.mean),
        std=_channels(usual.std),
        published=tuple(_published(name, entry) for entry in entries),
    )


def _build(name: str, input_size: int, classes: int) -> TorchvisionClassifier:
    return TorchvisionClassifier(name, classes, input_size)


def _published(name: str, entry: Any) -> Published:
    transforms = entry.transforms()
    return Published(
        version=entry.name.lower().removeprefix("imagenet1k_"),
        source=f"torchvision, trained on ImageNet-1k ({entry.url.rpartition('/')[2]})",
        licence="BSD-3-Clause",
        resize_size=transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        input_size=transforms.crop_size[0],
        url=entry.url,
        fetch=partial(_fetch, name, entry),
    )


def _fetch(name: str, entry: Any) -> dict[str, Tensor]:
    """The state dict in today's names, which torchvision makes of those in some old files."""
    state: dict[str, Tensor] = _torchvision().models.get_model(name, weights=entry).state_dict()
    return state


def _channels(values: list[float]) -> Channels:
    red, green, blue = values
    return red, green, blue


def _parts(network: nn.Module, head: str) -> tuple[list[str], list[str]]:
    """The dotted names of what is before the pooling, and of what is between that and the head."""
    top = head.partition(".")[0]
    names = [name for name, _ in network.named_children()]
    names = names[: names.index(top)] if top in names else names
    cut = names.index("avgpool") if "avgpool" in names else len(names)
    trunk = [part for name in names[:cut] for part in _opened(network, name)]
    rest = names[cut:]
    if "." in head:
        inner = [f"{top}.{name}" for name, _ in network.get_submodule(top).named_children()]
        rest += inner[: inner.index(head)] if head in inner else []
    return trunk, rest


def _opened(network: nn.Module, name: str) -> list[str]:
    """A list of modules can't be called: its members can."""
    module = network.get_submodule(name)
    if isinstance(module, nn.ModuleList):
        return [f"{name}.{inner}" for inner, _ in module.named_children()]
    return [name]


def _pooled(network: nn.Module, rest: tuple[str, ...], output: Tensor) -> Tensor:
    """From the trunk's output to what the head gets."""
    if hasattr(network, "class_token"):
        if output.ndim != 3:
            raise SettingError(
                f"{type(network).__name__} pools by its class token, which feature maps lack; expected a "
                "network that pools its feature maps"
            )
        return output[:, 0]
    pools = any(isinstance(network.get_submodule(name), nn.AdaptiveAvgPool2d) for name in rest)
    x = output if pools else output.mean(dim=(2, 3))
    for name in rest:
        part = network.get_submodule(name)
        x = part(x.flatten(1) if isinstance(part, nn.Linear) else x)
    return x.flatten(1)


def _torchvision() -> ModuleType:
    try:
        import torchvision
        import torchvision.models
    except (ImportError, RuntimeError) as error:  # RuntimeError: beside another build of torch
        raise MissingExtra(
            "torchvision: architectures need the extra 'torchvision', beside the build of PyTorch that fits "
            f"(pip install 'fovea-serving[torchvision]'); torchvision can't be imported: {error}"
        ) from error
    module: ModuleType = torchvision
    return module
