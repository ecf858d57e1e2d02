"""Our own networks against the libraries' code, on the same random weights."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.training.functional_resnets import random_state
from tests.training.models.full_torch import needs_full_torch
from training.models import architecture
from training.normalization import Normalization
from training.splits import IMAGENET_MEAN, IMAGENET_STD
from training.weights import load_weights

pytestmark = needs_full_torch


def library_network(name: str) -> nn.Module:
    import timm
    import torchvision

    if name.startswith("resnet"):
        network: nn.Module = torchvision.models.get_model(name, weights=None)
    elif name == "googlenet":
        network = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    elif name == "inception-v3":
        network = torchvision.models.inception_v3(weights=None, aux_logits=True, init_weights=False)
    else:
        network = timm.create_model(name.replace("-", "_"))
    return network


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet18", 97),
        ("resnet50", 97),
        ("googlenet", 97),
        ("inception-v3", 299),
        ("inception-v4", 139),
        ("inception-resnet-v2", 139),
    ],
)
def test_gives_the_same_logits(name: str, side: int) -> None:
    theirs = library_network(name).double()
    state = random_state(theirs.state_dict(), seed=1)
    theirs.load_state_dict(state)
    ours = architecture(name).build(1000).double()
    assert load_weights(ours, state, "the library's")
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.inference_mode():
        expected, logits = theirs.eval()(x), ours.eval()(x)
    assert expected.std() > 0.01
    assert (logits - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize(("name", "side"), [("googlenet", 224), ("inception-v3", 299)])
def test_gives_the_same_auxiliary_logits_in_training(name: str, side: int) -> None:
    theirs = library_network(name).double()
    state = random_state(theirs.state_dict(), seed=3)
    theirs.load_state_dict(state)
    ours = architecture(name).build(1000).double()
    load_weights(ours, state, "the library's")
    for network in (theirs, ours):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with torch.no_grad():
        named, logits = theirs(x), ours.forward_with_auxiliary(x)
    # torchvision's GoogLeNet names the upper head first.
    expected = (named.logits, named.aux_logits1, named.aux_logits2) if len(named) == 3 else tuple(named)
    for one, other in zip(logits, expected, strict=True):
        assert (one - other).abs().max() <= 1e-10 * other.abs().max()


@pytest.mark.parametrize("name", ["googlenet", "inception-v3"])
def test_pixels_become_what_the_published_weights_were_trained_on(name: str) -> None:
    # torchvision normalises by ImageNet's mean and deviation, and lets the network undo it.
    theirs: Any = library_network(name)
    theirs.transform_input = True
    pixels = torch.randint(0, 256, (1, 5, 7, 3), dtype=torch.uint8)
    design = architecture(name)
    expected = theirs._transform_input(Normalization(IMAGENET_MEAN, IMAGENET_STD)(pixels))
    assert torch.allclose(Normalization(design.mean, design.std)(pixels), expected, atol=1e-6)
