"""The networks against what is published about them."""

import pytest
import torch
from torch import nn

from tests.training.functional_resnets import basic_resnet, cifar_resnet, random_state
from training.architecture_names import ARCHITECTURE_NAMES
from training.errors import SettingError, UnknownArchitecture, WeightsError
from training.models import ARCHITECTURES, Classifier, architecture
from training.models.cifar_resnet import OptionA
from training.weights import load_weights

# torchvision's documentation of its weights, num_params.
IMAGENET_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
# He et al. 2015, table 6, gives 0.27, 0.46, 0.66, 0.85, 1.7 and 19.4 million.
CIFAR_PARAMETERS = {
    "resnet20-cifar": 269_722,
    "resnet32-cifar": 464_154,
    "resnet44-cifar": 658_586,
    "resnet56-cifar": 853_018,
    "resnet110-cifar": 1_727_962,
    "resnet1202-cifar": 19_421_274,
}

Shapes = dict[str, tuple[int, ...]]


@pytest.mark.parametrize(("name", "count"), [*IMAGENET_PARAMETERS.items(), *CIFAR_PARAMETERS.items()])
def test_has_the_published_number_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):  # shapes alone, no memory
        model = architecture(name).build(1000 if name in IMAGENET_PARAMETERS else 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_registry_has_them_all() -> None:
    assert set(ARCHITECTURES) >= IMAGENET_PARAMETERS.keys() | CIFAR_PARAMETERS.keys()
    assert tuple(ARCHITECTURES) == ARCHITECTURE_NAMES  # what --help lists without PyTorch
    assert (architecture("resnet50").input_size, architecture("resnet50").resize_size) == (224, 256)
    assert architecture("resnet20-cifar").input_size == 32
    assert architecture("resnet50").resize_for(448) == 512


def test_too_small_an_input_is_refused_with_the_least() -> None:
    architecture("inception-v3").check_input_size(75)
    with pytest.raises(SettingError, match=r"--input-size is 74; inception-v3 needs 75 pixels or more"):
        architecture("inception-v3").check_input_size(74)


def test_an_unknown_name_lists_the_supported_ones() -> None:
    with pytest.raises(
        UnknownArchitecture, match=r"'resnet19'.*resnet18, .*lenet5.* timm:<name> and torchvision:<name>"
    ):
        architecture("resnet19")


def torchvision_shapes(bottleneck: bool, depths: tuple[int, ...], classes: int = 1000) -> Shapes:
    """The names and shapes of torchvision's state dicts, as published."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64)
    channels = 64
    for stage, depth in enumerate(depths, 1):
        width = 32 * 2**stage
        out = width * 4 if bottleneck else width
        for block in range(depth):
            at = f"layer{stage}.{block}"
            if bottleneck:
                convolutions = [(width, channels, 1), (width, width, 3), (out, width, 1)]
            else:
                convolutions = [(width, channels, 3), (width, width, 3)]
            for number, (rows, columns, kernel) in enumerate(convolutions, 1):
                shapes[f"{at}.conv{number}.weight"] = (rows, columns, kernel, kernel)
                shapes |= batch_norm(f"{at}.bn{number}", rows)
            if block == 0 and channels != out:
                shapes[f"{at}.downsample.0.weight"] = (out, channels, 1, 1)
                shapes |= batch_norm(f"{at}.downsample.1", out)
            channels = out
    return shapes | {"fc.weight": (classes, channels), "fc.bias": (classes,)}


def batch_norm(name: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{vector}": (channels,) for vector in vectors} | {f"{name}.num_batches_tracked": ()}


@pytest.mark.parametrize(
    ("name", "bottleneck", "depths"),
    [
        ("resnet18", False, (2, 2, 2, 2)),
        ("resnet34", False, (3, 4, 6, 3)),
        ("resnet50", True, (3, 4, 6, 3)),
        ("resnet101", True, (3, 4, 23, 3)),
        ("resnet152", True, (3, 8, 36, 3)),
    ],
)
def test_has_torchvisions_names_and_shapes(name: str, bottleneck: bool, depths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = architecture(name).build(1000)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert ours == torchvision_shapes(bottleneck, depths)


def test_a_torchvision_state_dict_loads_key_for_key() -> None:
    model = architecture("resnet18").build(1000)
    shapes = torchvision_shapes(False, (2, 2, 2, 2))
    published = {name: torch.full(shape, 0.25) for name, shape in shapes.items()}
    assert load_weights(model, published, "published")
    assert all(
        bool((value == published[name].to(value.dtype)).all()) for name, value in model.state_dict().items()
    )
    # The files of before PyTorch 0.4.1 have no counters.
    old = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    assert load_weights(model, old, "published")


@pytest.mark.parametrize(
    ("name", "height", "width"), [("resnet18", 71, 53), ("resnet50", 71, 53), ("resnet20-cifar", 31, 23)]
)
def test_computes_what_is_published(name: str, height: int, width: int) -> None:
    model = architecture(name).build(5).double().eval()
    state = random_state(model.state_dict(), seed=1)
    model.load_state_dict(state)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        if name == "resnet20-cifar":
            expected = cifar_resnet(state, x, blocks=3)
        elif name == "resnet18":
            expected = basic_resnet(state, x, (2, 2, 2, 2), bottleneck=False)
        else:
            expected = basic_resnet(state, x, (3, 4, 6, 3), bottleneck=True)
        logits = model(x)
    assert expected.std() > 0.01
    assert (logits - expected).abs().max() <= 1e-11 * expected.abs().max()


def test_the_bottleneck_strides_in_its_3x3_convolution() -> None:
    model = architecture("resnet50").build(2)
    first: nn.Module = model.get_submodule("layer2.0")
    assert first.get_submodule("conv1").stride == (1, 1)
    assert first.get_submodule("conv2").stride == (2, 2)
    assert first.get_submodule("downsample.0").stride == (2, 2)


def test_option_a_subsamples_and_adds_zeros_without_parameters() -> None:
    shortcut = OptionA(16, 32, stride=2)
    assert not list(shortcut.parameters())
    x = torch.randn(2, 16, 6, 6)
    out = shortcut(x)
    assert out.shape == (2, 32, 3, 3)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


@pytest.mark.parametrize(("name", "side", "dimension"), [("resnet18", 64, 512), ("resnet20-cifar", 32, 64)])
def test_the_head_turns_features_into_logits(name: str, side: int, dimension: int) -> None:
    model: Classifier = architecture(name).build(7).eval()
    x = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        features, logits = model.features(x), model(x)
        by_hand = features @ model.head.weight.T + model.head.bias
    assert features.shape == (2, dimension)
    assert model.embedding_dimension == dimension
    assert torch.allclose(logits, by_hand, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused_with_names() -> None:
    given = dict(architecture("resnet32-cifar").build(10).state_dict())
    given["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    del given["bn1.bias"]
    with pytest.raises(WeightsError) as caught:
        load_weights(architecture("resnet20-cifar").build(10), given, "file.pth")
    message = str(caught.value)
    assert message.startswith("file.pth: ")
    assert "missing (1): bn1.bias" in message
    assert "unexpected (" in message
    assert "layer1.3.bn1.bias" in message
    assert "conv1.weight is [16, 1, 3, 3], expected [16, 3, 3, 3]" in message


def test_a_head_of_another_size_is_refused_or_adapted() -> None:
    given = dict(architecture("resnet20-cifar").build(100).state_dict())
    model = architecture("resnet20-cifar").build(10)
    with pytest.raises(WeightsError, match=r"the head has 100 classes; expected 10"):
        load_weights(model, given, "file.pth")
    own_head = model.head.weight.clone()
    assert not load_weights(model, given, "file.pth", adapt_head=True)
    assert torch.equal(model.head.weight, own_head)
    assert torch.equal(model.state_dict()["conv1.weight"], given["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20-cifar"])
def test_every_parameter_is_in_one_stage_and_the_last_is_the_head(name: str) -> None:
    with torch.device("meta"):
        model = architecture(name).build(10)
    stages = model.stages()
    assert next(stage for stage, _ in stages) == "stem"
    assert all(parameters for _, parameters in stages)
    flat = [id(parameter) for _, parameters in stages for parameter in parameters]
    assert sorted(flat) == sorted(id(parameter) for parameter in model.parameters())
    name, parameters = stages[-1]
    assert name == "head"
    assert {id(parameter) for parameter in parameters} == {id(p) for p in model.head.parameters()}


def test_a_replaced_head_fits_the_features() -> None:
    model = architecture("resnet20-cifar").build(10).eval()
    model.replace_head(3)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    model.dropout = 0.5
    assert model.dropout == 0.5
    with pytest.raises(ValueError, match=r"dropout is 1\.0; expected from 0 to below 1"):
        model.dropout = 1.0
