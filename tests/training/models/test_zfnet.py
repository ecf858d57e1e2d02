"""ZFNet against the paper's figure 3."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

from training.models import architecture
from training.models.heads import with_embedding
from training.models.zfnet import HiddenLayers, ZFNet, _contrast_normalized, _halved


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(classes: int = 1000) -> ZFNet:
    with torch.device("meta"):  # shapes alone, no memory
        return ZFNet(classes)


def test_has_the_number_of_parameters_that_the_figure_comes_to() -> None:
    model = on_meta()
    layers = (model.conv1, model.conv2, model.conv3, model.conv4, model.conv5)
    # Weights, and a bias for each map.
    assert [size(layer) for layer in layers] == [
        3 * 7 * 7 * 96 + 96,
        96 * 5 * 5 * 256 + 256,
        256 * 3 * 3 * 384 + 384,
        384 * 3 * 3 * 384 + 384,
        384 * 3 * 3 * 256 + 256,
    ]
    assert size(model.pool) == (6 * 6 * 256 * 4096 + 4096) + (4096 * 4096 + 4096)
    assert size(model.head) == 4096 * 1000 + 1000
    assert size(model) == 62_357_608


def test_has_the_papers_shapes() -> None:
    model = on_meta().eval()
    shapes = []
    for layer in (model.conv1, model.conv2, model.conv3, model.conv4, model.conv5):
        layer.register_forward_hook(lambda _layer, _inputs, maps: shapes.append(tuple(maps.shape[1:])))
    x = torch.empty(2, 3, 224, 224, device="meta")
    assert model(x).shape == (2, 1000)
    assert shapes == [(96, 110, 110), (256, 26, 26), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    assert model.features(x).shape == (2, 4096)


def test_at_224_pixels_the_last_pooling_is_the_papers() -> None:
    model = ZFNet(3, hidden=8).eval()
    maps = torch.randn(2, 256, 13, 13)
    pool = model.pool
    assert isinstance(pool, HiddenLayers)
    hidden = F.relu(pool.fc6(F.max_pool2d(maps, 3, stride=2).flatten(1)))
    assert torch.allclose(pool(maps), F.relu(pool.fc7(hidden)), atol=1e-6)


@pytest.mark.parametrize("side", [2, 3, 7])
def test_no_window_is_larger_than_its_map(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(2, 3, side, side)
    expected = F.max_pool2d(maps, 3, stride=2, ceil_mode=True)
    windows = []
    pool: Any = F.max_pool2d

    def recorded(x: torch.Tensor, window: tuple[int, int], **options: Any) -> Any:
        windows.append(window)
        return pool(x, window, **options)

    monkeypatch.setattr(F, "max_pool2d", recorded)
    assert torch.equal(_halved(maps), expected)
    assert windows == [(min(3, side),) * 2]


def test_takes_the_smallest_input_that_it_says() -> None:
    side = architecture("zfnet").smallest_input
    model = ZFNet(3, hidden=8).eval()
    assert model.feature_maps(torch.zeros(1, 3, side, side)).shape == (1, 256, 1, 1)
    assert model(torch.zeros(1, 3, side, side + 40)).shape == (1, 3)
    with pytest.raises(RuntimeError, match=r"[Ss]ize"):
        model(torch.zeros(1, 3, side - 1, side - 1))


def test_contrast_is_normalised_as_in_alexnet() -> None:
    maps = 10 * torch.randn(2, 8, 3, 4, dtype=torch.float64)
    x = maps.numpy()
    expected = np.empty_like(x)
    for channel in range(8):
        near = x[:, max(0, channel - 2) : channel + 3]
        expected[:, channel] = x[:, channel] / (2 + 1e-4 * (near**2).sum(axis=1)) ** 0.75
    np.testing.assert_allclose(_contrast_normalized(maps).numpy(), expected, rtol=1e-12)


def test_dropout_is_that_of_both_hidden_layers() -> None:
    model = ZFNet(3, hidden=8)
    assert model.dropout == 0.5
    model.dropout = 0.25
    assert [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)] == [0.25, 0.25]


@pytest.mark.parametrize("projection", [None, 4])
def test_hidden_layers_are_stages_behind_a_projection_too(projection: int | None) -> None:
    model = with_embedding(ZFNet(3, hidden=8), "avg", projection)
    stages = dict(model.stages())
    assert list(stages) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "head"]
    assert [parameter.shape[0] for parameter in stages["fc7"]] == [8, 8]
    assert len(stages["head"]) == (3 if projection else 2)
