"""timm's networks: `timm:xception`, `timm:vit_small_patch16_224.augreg_in21k_ft_in1k`."""

import warnings
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.hub import HASH_REGEX

from training.errors import MissingExtra, SettingError, UnknownArchitecture, WeightsError
from training.models.adapters.library_classifier import LibraryClassifier, as_maps
from training.models.architecture import Architecture, Channels, Published


class TimmClassifier(LibraryClassifier):
    """A network of timm, by its `forward_features` and `forward_head`.

    Args:
        name: timm's.
        classes: logits.
    """

    def __init__(self, name: str, classes: int) -> None:
        network = _network(name, num_classes=classes)
        super().__init__(
            f"timm:{name}",
            network,
            _name_of(network, network.get_classifier()),
            partial(_pooled, network),
            network.num_features,
        )
        # Small maps of noise are enough to see how they are pooled; tokens may be pooled in other ways.
        if not _has_tokens(network) and not next(network.parameters()).is_meta:
            draw = torch.Generator().manual_seed(0)
            self.simplify_pool(torch.randn(1, self.feature_channels, 7, 7, generator=draw))

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, feature_channels, h, w]."""
        prefix = getattr(self.network, "num_prefix_tokens", 0)
        return as_maps(self.network.forward_features(x), self.feature_channels, prefix)

    def features(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → pooled float32 [batch, embedding_dimension]."""
        if not self.pools_itself:
            return super().features(x)
        pooled: Tensor = self.pool(self.network.forward_features(x))
        return pooled


def timm_architecture(name: str) -> Architecture:
    """What timm knows of one of its networks.

    Raises:
        UnknownArchitecture: timm has none of that name; lists similar ones.
        MissingExtra: timm can't be imported.
    """
    timm = _timm()
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name.partition('.')[0][:6]}*")[:8]
        raise UnknownArchitecture(f"timm has no model {name!r}; similar ones: {', '.join(similar) or 'none'}")
    with torch.device("meta"):
        # Not asked by name: old names, such as xception, have no entry of their own.
        described = _network(name).pretrained_cfg
    config = timm.models.PretrainedCfg(**described)
    known: dict[str, Any] = timm.data.resolve_data_config(pretrained_cfg=described)
    size = known["input_size"][1]
    resize = int(size / known["crop_pct"])
    interpolation = known["interpolation"] if known["interpolation"] != "random" else "bicubic"
    published = []
    if config.has_weights:
        published.append(
            Published(
                version=config.tag or "default",
                source=f"timm {timm.__version__}, {name}, {config.hf_hub_id or config.url}",
                licence=config.license or "",
                resize_size=resize,
                interpolation=interpolation,
                classes=config.num_classes,
                # timm reads a file at a URL from torch.hub's cache; what is on the hub it downloads itself.
                url="" if config.hf_hub_id or not HASH_REGEX.search(str(config.url)) else str(config.url),
                fetch=partial(_fetch, name, config.hf_hub_id or str(config.url)),
            )
        )
    return Architecture(
        name=f"timm:{name}",
        build=partial(TimmClassifier, name),
        input_size=size,
        resize_size=resize,
        interpolation=interpolation,
        mean=_channels(known["mean"]),
        std=_channels(known["std"]),
        published=tuple(published),
    )


def _channels(values: tuple[float, ...]) -> Channels:
    red, green, blue = values
    return red, green, blue


def _pooled(network: Any, output: Tensor) -> Tensor:
    """timm's pooling of its own trunk's output, or of what `feature_maps` made of that."""
    prefix = getattr(network, "num_prefix_tokens", None)
    if prefix is not None and output.ndim == 4:
        if prefix:
            raise SettingError(
                f"{type(network).__name__} pools by tokens that aren't places of the picture, which its "
                "feature maps lack; expected a network that pools its feature maps"
            )
        output = output.flatten(2).transpose(1, 2)
    elif getattr(network, "output_fmt", "NCHW") == "NHWC" and output.shape[1] == network.num_features:
        output = output.permute(0, 2, 3, 1)
    pooled: Tensor = network.forward_head(output, pre_logits=True)
    return pooled


def _name_of(network: nn.Module, wanted: object) -> str:
    return next((name for name, module in network.named_modules() if module is wanted), "")


def _has_tokens(network: Any) -> bool:
    return hasattr(network, "num_prefix_tokens") or getattr(network, "output_fmt", "NCHW") != "NCHW"


def _fetch(name: str, source: str) -> dict[str, Tensor]:
    """The published state dict, through timm's own download and cache.

    Raises:
        WeightsError: it can't be had.
    """
    try:
        network = _network(name, pretrained=True)
    except Exception as error:  # timm and the hub's client raise many kinds
        raise WeightsError(
            f"timm can't get the weights of {name} ({source}): {error}\n"
            "without network, put them into the Hugging Face cache ($HF_HOME), or download the file "
            "elsewhere and name it with --weights or --init-weights"
        ) from error
    state: dict[str, Tensor] = network.state_dict()
    return state


def _network(name: str, **arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mapping deprecated model name", UserWarning)
        return _timm().create_model(name, **arguments)


def _timm() -> ModuleType:
    try:
        import timm
        import timm.data
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision beside another build of torch
        raise MissingExtra(
            f"timm: architectures need the extra 'timm', beside a build of PyTorch that torchvision fits "
            f"(pip install 'fovea-serving[timm]'); timm can't be imported: {error}"
        ) from error
    module: ModuleType = timm
    return module
