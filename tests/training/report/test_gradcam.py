"""Grad-CAM against what it is by hand: for a mean and a linear head it is the class's own weights."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from numpy.typing import NDArray

from training.models import Classifier, architecture
from training.normalization import Normalization
from training.report.gradcam import gradcam

CPU = torch.device("cpu")
NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def pixels(count: int, side: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, side, side, 3), np.uint8)


def test_of_a_mean_and_a_linear_head_it_is_the_weighted_sum_of_the_maps() -> None:
    torch.manual_seed(0)
    model = architecture("resnet20-cifar").build(4).eval()
    images, classes = pixels(20), np.arange(20) % 4
    found = gradcam(model, NORMALIZATION, images, classes, CPU)
    with torch.no_grad():
        maps = model.feature_maps(NORMALIZATION(torch.from_numpy(images)))
        heat = torch.einsum("nchw,nc->nhw", maps, model.head.weight[torch.from_numpy(classes)]).relu()
        heat = F.interpolate(heat[:, None], size=(16, 16), mode="bilinear")[:, 0]
        heat = heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-20)
    np.testing.assert_allclose(found, heat.numpy(), atol=1e-5)
    assert found.shape == (20, 16, 16)
    assert set(found.max(axis=(1, 2)).round(5).tolist()) == {0.0, 1.0}
    assert all(parameter.grad is None for parameter in model.parameters())


class Colours(Classifier):
    """Its maps are the picture, at a quarter of its size; class k is the mean of channel k."""

    trunk = ()

    def __init__(self) -> None:
        super().__init__(feature_channels=3)
        self.fc = torch.nn.Linear(3, 3, bias=False)
        torch.nn.init.eye_(self.fc.weight)

    def feature_maps(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 4)


def test_it_shows_where_the_class_is() -> None:
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    picture[0, 4:12, 20:28, 0] = 255
    picture[0, 20:28, 4:12, 2] = 255
    model, plain = Colours().eval(), Normalization((0, 0, 0), (1, 1, 1))
    for label, (row, column) in {0: (8, 24), 2: (24, 8)}.items():
        (heat,) = gradcam(model, plain, picture, np.array([label]), CPU)
        assert heat[row, column] == 1
        assert heat[column, row] == 0
    (heat,) = gradcam(model, plain, picture, np.array([1]), CPU)
    assert heat.max() == 0, "nothing speaks for green, and that is no division by zero"
