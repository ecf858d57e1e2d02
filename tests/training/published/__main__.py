"""Write the files again, from the libraries' own code; needs torchvision and timm."""

import gzip

import timm
import torch
import torchvision
from torch import nn

from tests.training.published import FOLDER


def main() -> None:
    with torch.device("meta"):
        networks: dict[str, nn.Module] = {
            "torchvision-googlenet": torchvision.models.googlenet(aux_logits=True, init_weights=False),
            "torchvision-inception_v3": torchvision.models.inception_v3(init_weights=False),
            "timm-inception_v4": timm.create_model("inception_v4"),
            "timm-inception_resnet_v2": timm.create_model("inception_resnet_v2"),
        }
    for name, network in networks.items():
        lines = []
        for key, value in network.state_dict().items():
            sides = "x".join(map(str, value.shape))
            lines.append(f"{key} {sides}" if sides else key)
        text = "\n".join(lines) + "\n"
        (FOLDER / f"{name}.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
