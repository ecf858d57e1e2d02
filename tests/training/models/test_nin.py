"""Network in Network against the authors' network for CIFAR-10."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

from training.models import architecture
from training.models.nin import NiN


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_has_the_number_of_parameters_of_the_authors_file() -> None:
    model = NiN(10)
    assert size(model.block1) == (75 * 192 + 192) + (192 * 160 + 160) + (160 * 96 + 96)
    assert size(model.block2) == (96 * 25 * 192 + 192) + 2 * (192 * 192 + 192)
    assert size(model.block3) == (192 * 9 * 192 + 192) + (192 * 192 + 192)
    assert size(model.head) == 192 * 10 + 10
    assert size(model) == 966_986


def test_has_the_papers_shapes() -> None:
    model = NiN(10).eval()
    blocks = (model.block1, model.block2, model.block3)
    shapes = []
    for block in blocks:
        block.register_forward_hook(lambda _block, _inputs, maps: shapes.append(tuple(maps.shape[1:])))
    x = torch.randn(2, 3, 32, 32)
    assert model(x).shape == (2, 10)
    assert shapes == [(96, 32, 32), (192, 16, 16), (192, 8, 8)]
    assert model.features(x).shape == (2, 192)


def test_logits_are_the_means_of_the_class_maps() -> None:
    torch.manual_seed(0)
    model = NiN(5).eval()
    x = torch.randn(2, 3, 20, 28)
    with torch.inference_mode():
        # cccp6 of the authors' file, a 1x1 convolution, without the rectification behind it.
        class_maps = F.conv2d(model.feature_maps(x), model.head.weight[:, :, None, None], model.head.bias)
        assert class_maps.shape == (2, 5, 5, 7)
        assert torch.allclose(model(x), class_maps.mean(dim=(2, 3)), atol=1e-5)
        assert (class_maps < 0).any()


def test_windows_over_the_edge_are_means_of_what_is_there() -> None:
    model = NiN(2, widths=((1, 1, 1), (1, 1, 1), (1, 1))).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    last = model.block2[-2]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    torch.nn.init.ones_(last.bias)  # what is pooled is 1 everywhere
    pooled = []
    model.block3.register_forward_pre_hook(lambda _block, inputs: pooled.append(inputs[0]))
    model(torch.zeros(1, 3, 8, 8))
    assert torch.equal(pooled[0], torch.ones(1, 1, 2, 2))


def test_dropout_is_between_the_blocks() -> None:
    model = NiN(3)
    assert model.dropout == 0.5
    model.dropout = 0.25
    found = [name for name, module in model.named_modules() if getattr(module, "p", None) == 0.25]
    assert found == ["block2.0", "block3.0"]
    torch.manual_seed(0)
    features = torch.randn(4, 192)
    assert torch.equal(model.train().classify(features), model.eval().classify(features))


def test_takes_the_smallest_input_that_it_says() -> None:
    side = architecture("nin").smallest_input
    model = NiN(3).eval()
    assert model.feature_maps(torch.zeros(1, 3, side, side)).shape == (1, 192, 1, 1)
    with pytest.raises(RuntimeError, match=r"[Ss]ize"):
        model(torch.zeros(1, 3, side - 1, side - 1))


def test_every_parameter_is_in_one_stage() -> None:
    model = NiN(3)
    stages = model.stages()
    assert [name for name, _ in stages] == ["block1", "block2", "block3", "head"]
    assert [len(parameters) for _, parameters in stages] == [6, 6, 4, 2]
