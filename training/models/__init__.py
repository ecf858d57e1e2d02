"""The architectures by name. A new one is one more line in `ARCHITECTURES`."""

from collections.abc import Callable
from dataclasses import dataclass

from training.errors import UnknownArchitecture
from training.models import cifar_resnet, resnet
from training.models.classifier import Classifier

__all__ = ["ARCHITECTURES", "Architecture", "Classifier", "architecture"]


@dataclass(frozen=True)
class Architecture:
    """A network that can be built by name.

    Attributes:
        name: as typed after --arch.
        build: number of classes → network with random weights.
        input_size: side of its usual square input, in pixels.
        resize_size: the short side is brought to this before that square is cut from the centre.
    """

    name: str
    build: Callable[[int], Classifier]
    input_size: int
    resize_size: int

    def resize_for(self, input_size: int) -> int:
        """What the short side is brought to for another input size: the same margin around the crop."""
        return round(input_size * self.resize_size / self.input_size)


ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry
    for entry in (
        *(Architecture(f"resnet{depth}", resnet.resnet(depth), 224, 256) for depth in resnet.DEPTHS),
        *(
            Architecture(f"resnet{depth}-cifar", cifar_resnet.cifar_resnet(depth), 32, 32)
            for depth in cifar_resnet.DEPTHS
        ),
    )
}


def architecture(name: str) -> Architecture:
    """Look an architecture up.

    Raises:
        UnknownArchitecture: lists the supported ones.
    """
    if name not in ARCHITECTURES:
        raise UnknownArchitecture(f"architecture {name!r} isn't known; supported: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
