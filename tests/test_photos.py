"""Published weights, from the command line to the caller: served they say what they say in PyTorch."""

import re
from pathlib import Path

import fovea
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fovea import Client

from service.preprocess import Preprocessing
from tests.servers import ServerProcess
from training.cli import main
from training.data import Split
from training.models import architecture
from training.normalization import Normalization
from training.parity_images import split_images
from training.pretrained import load_pretrained

ARCHITECTURE = "efficientnet-lite0"
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"


def offline(paths: list[Path]) -> list[list[int]]:
    """The five likeliest classes of each, by PyTorch on the service's own pixels."""
    design = architecture(ARCHITECTURE)
    spec = Preprocessing(design.resize_size, design.input_size, design.input_size, design.interpolation)
    model = design.build(1000)
    load_pretrained(model, ARCHITECTURE)
    network = torch.nn.Sequential(Normalization(design.mean, design.std), model).eval()
    pixels = torch.from_numpy(split_images(Split(paths, np.zeros(len(paths), np.int64)), spec))
    with torch.inference_mode():
        best: list[list[int]] = network(pixels).topk(5).indices.tolist()
    return best


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the 62 photographs aren't beside this checkout")
def test_photographs_are_named_as_well_served_as_offline(tmp_path: Path) -> None:
    # One of every 16th ImageNet class, from class 8, in their order.
    paths = sorted(PHOTOS.glob("*.JPEG"))
    assert len(paths) == 62
    assert all(re.match(r"n\d{8}_", path.name) for path in paths)
    repository = str(tmp_path / "models")
    options = ["export", "--arch", ARCHITECTURE, "--pretrained", "--model-repository", repository]
    exported = CliRunner().invoke(main, options)
    assert exported.exit_code == 0, exported.output
    with ServerProcess(tmp_path / "models", tmp_path / "index") as server, Client(server.address) as client:
        served = []
        for found in client.classify_stream(paths, top_k=5):
            assert not isinstance(found, fovea.FoveaError)
            served.append([score.index for score in found.classes])
    assert served == offline(paths)
    top1 = sum(found[0] == 8 + 16 * number for number, found in enumerate(served))
    top5 = sum(8 + 16 * number in found for number, found in enumerate(served))
    assert (top1, top5) == (52, 62)
