"""What others published about the networks: the names and shapes of their state dicts.

Each file has a line a tensor, `name` or `name 64x3x7x7`, in the published order. They were written by
`python -m tests.training.published`, with torchvision 0.28.0 and timm 1.0.31.
"""

import gzip
from pathlib import Path

FOLDER = Path(__file__).parent
Shapes = dict[str, tuple[int, ...]]


def shapes(network: str) -> Shapes:
    """The names and shapes of a published state dict, such as of 'timm-inception_v4'."""
    lines = gzip.decompress((FOLDER / f"{network}.txt.gz").read_bytes()).decode().splitlines()
    found: Shapes = {}
    for line in lines:
        name, _, sides = line.partition(" ")
        found[name] = tuple(int(side) for side in sides.split("x")) if sides else ()
    return found
