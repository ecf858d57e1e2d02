"""The Inception networks against what torchvision, timm and their papers publish."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from tests.training.published import shapes
from training.models import Classifier, architecture
from training.models.googlenet import GoogLeNet
from training.models.inception_v3 import InceptionV3
from training.weights import load_weights

# num_params of torchvision's weights is without auxiliary heads for GoogLeNet and with it for Inception-v3;
# timm's results table gives 42.68 and 55.84 million.
PARAMETERS = {
    "googlenet": 13_004_888,
    "inception-v3": 27_161_264,
    "inception-v4": 42_679_816,
    "inception-resnet-v2": 55_843_464,
}
STATE_DICTS = {
    "googlenet": "torchvision-googlenet",
    "inception-v3": "torchvision-inception_v3",
    "inception-v4": "timm-inception_v4",
    "inception-resnet-v2": "timm-inception_resnet_v2",
}
# Channels and side of the last feature maps, of the papers' tables and figures.
MAPS = {
    "googlenet": (1024, 7),
    "inception-v3": (2048, 8),
    "inception-v4": (1536, 8),
    "inception-resnet-v2": (1536, 8),
}


def on_meta(build: Callable[[int], Classifier], classes: int = 1000) -> Classifier:
    with torch.device("meta"):  # shapes alone, no memory
        return build(classes)


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_has_the_published_number_of_parameters(name: str) -> None:
    assert size(on_meta(architecture(name).build)) == PARAMETERS[name]


def test_has_the_published_number_of_parameters_without_auxiliary_heads() -> None:
    assert size(on_meta(partial(GoogLeNet, auxiliary=False))) == 6_624_904
    assert size(on_meta(partial(InceptionV3, auxiliary=False))) == 23_834_568


@pytest.mark.parametrize("name", STATE_DICTS)
def test_has_the_published_names_and_shapes_in_their_order(name: str) -> None:
    model = on_meta(architecture(name).build)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    published = shapes(STATE_DICTS[name])
    assert ours == published
    assert list(ours) == list(published)


@pytest.mark.parametrize("name", STATE_DICTS)
def test_a_published_state_dict_loads_key_for_key(name: str) -> None:
    with torch.device("meta"):
        model = architecture(name).build(1000)
    model = model.to_empty(device="cpu")
    published = {
        key: torch.full(shape, index % 97 + 0.25)
        for index, (key, shape) in enumerate(shapes(STATE_DICTS[name]).items())
    }
    assert load_weights(model, published, "published")
    loaded = model.state_dict()
    assert all(bool((loaded[key] == value.to(loaded[key].dtype)).all()) for key, value in published.items())
    # PyTorch's own way too.
    model.load_state_dict(published, strict=True)


@pytest.mark.parametrize("name", MAPS)
def test_gives_the_published_shapes(name: str) -> None:
    design = architecture(name)
    model = on_meta(design.build).eval()
    x = torch.empty(2, 3, design.input_size, design.input_size, device="meta")
    channels, side = MAPS[name]
    assert model.feature_maps(x).shape == (2, channels, side, side)
    assert model.features(x).shape == (2, model.embedding_dimension) == (2, channels)
    assert model(x).shape == (2, 1000)
    heads = 1 + len(model.auxiliary_weights)
    assert [logits.shape for logits in model.forward_with_auxiliary(x)] == [(2, 1000)] * heads


@pytest.mark.parametrize("name", MAPS)
def test_takes_the_smallest_input_that_it_says(name: str) -> None:
    design = architecture(name)
    model = on_meta(design.build).eval()
    side = max(design.smallest_input, 32)
    x = torch.empty(2, 3, side, side, device="meta")
    assert all(logits.shape == (2, 1000) for logits in model.forward_with_auxiliary(x))
    if design.smallest_input > 1:
        with pytest.raises(RuntimeError, match=r"[Ss]ize"):
            model(torch.empty(2, 3, side - 1, side - 1, device="meta"))


@pytest.mark.parametrize(("name", "weights"), [("googlenet", (0.3, 0.3)), ("inception-v3", (0.4,))])
def test_auxiliary_heads_have_the_papers_weights_and_get_gradients(
    name: str, weights: tuple[float, ...]
) -> None:
    torch.manual_seed(0)
    model = architecture(name).build(3)
    assert model.auxiliary_weights == weights
    # Much smaller than the paper's, which Inception-v3's auxiliary head has to bear.
    outputs = model.forward_with_auxiliary(torch.randn(2, 3, 96, 96))
    assert len(outputs) == 1 + len(weights)
    torch.autograd.backward([logits.sum() for logits in outputs[1:]])
    got = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any(name.startswith(("aux1.", "AuxLogits.")) for name in got)
    assert any(name.startswith(("conv1.", "Conv2d_1a_3x3.")) for name in got)
    assert not any(name.startswith("fc.") for name in got)


@pytest.mark.parametrize("name", ["googlenet", "inception-v3"])
def test_a_replaced_head_replaces_the_auxiliary_ones(name: str) -> None:
    model = on_meta(architecture(name).build)
    model.replace_head(7)
    x = torch.empty(2, 3, 299, 299, device="meta")
    assert {logits.shape for logits in model.forward_with_auxiliary(x)} == {(2, 7)}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_is_in_one_stage(name: str) -> None:
    model = on_meta(architecture(name).build)
    stages = model.stages()
    flat = [id(parameter) for _, parameters in stages for parameter in parameters]
    assert sorted(flat) == sorted(id(parameter) for parameter in model.parameters())
    assert all(parameters for _, parameters in stages)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    in_head = {names[id(parameter)].partition(".")[0] for parameter in stages[-1][1]}
    assert in_head == {model.head_name, *(head.partition(".")[0] for head in model.auxiliary_head_names)}


def test_inception_v4_survives_a_round_trip_of_its_renumbered_names() -> None:
    source, target = architecture("inception-v4").build(2), architecture("inception-v4").build(2)
    target.load_state_dict(source.state_dict())
    pairs = zip(source.parameters(), target.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
