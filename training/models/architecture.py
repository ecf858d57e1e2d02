"""What is known of a network before it is built: its usual input, and the weights published for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from torch import Tensor

from training.errors import SettingError
from training.models.classifier import Classifier
from training.splits import IMAGENET_MEAN, IMAGENET_STD

Channels = tuple[float, float, float]
# Of networks whose authors scaled pixels to -1..1.
HALF: Channels = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Published:
    """Weights that someone else trained on ImageNet and published.

    `url` or `package` says where their file is; `fetch` makes a state dict of it, or gets one by itself.

    Attributes:
        version: as typed to choose among several.
        source: who published them, for the record.
        licence: of the weights; empty where unknown.
        resize_size: the short side is brought to this before the input is cut out.
        interpolation: of that.
        classes: logits, in the order of `labels/imagenet1k.txt` where there are 1,000.
        label_offset: logits before the first class (a background that TensorFlow's networks have).
        input_size: side of the square that is cut out; None where it is the architecture's.
        url: of a file with the beginning of its SHA-256 in its name, as torch.hub wants it.
        package: (import name, path inside, distribution) of an installable package with the file.
        fetch: an adapter's way to a state dict; None reads the file itself.
    """

    version: str
    source: str
    licence: str
    resize_size: int
    interpolation: str
    classes: int = 1000
    label_offset: int = 0
    input_size: int | None = None
    url: str = ""
    package: tuple[str, str, str] | None = None
    fetch: Callable[[], dict[str, Tensor]] | None = None

    @property
    def file(self) -> str:
        """The name of the file."""
        return PurePosixPath(self.package[1] if self.package else self.url).name


@dataclass(frozen=True)
class Architecture:
    """A network that can be built by name.

    Attributes:
        name: as typed after --arch.
        build: number of classes → network with random weights.
        input_size: side of its usual square input, in pixels.
        resize_size: the short side is brought to this before that square is cut from the centre.
        interpolation: of that, one of `service.preprocess.INTERPOLATIONS`.
        mean, std: what its pixels, scaled to 0..1, are usually normalised by, per RGB channel.
        smallest_input: the least side that leaves at least one pixel of feature maps.
        loss: what it is trained by unless told otherwise; empty for cross-entropy, binary with several
            labels an image.
        clip_norm: what its gradients are scaled down to unless told otherwise; 0 for never.
        published: weights that can be loaded by name, the first by default.
    """

    name: str
    build: Callable[[int], Classifier]
    input_size: int
    resize_size: int
    interpolation: str = "bilinear"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    smallest_input: int = 1
    loss: str = ""
    clip_norm: float = 0.0
    published: tuple[Published, ...] = ()

    def resize_for(self, input_size: int) -> int:
        """What the short side is brought to for another input size: the same margin around the crop."""
        return round(input_size * self.resize_size / self.input_size)

    def check_input_size(self, input_size: int) -> None:
        """Raises SettingError where nothing of such a picture would be left."""
        if input_size < self.smallest_input:
            raise SettingError(
                f"--input-size is {input_size}; {self.name} needs {self.smallest_input} pixels or more"
            )

    def published_version(self, version: str | None = None) -> Published:
        """The weights of that version; None takes the default.

        Raises:
            SettingError: lists the versions that there are.
        """
        for published in self.published:
            if version in (None, published.version):
                return published
        if not self.published:
            raise SettingError(f"no weights are published for {self.name}; name a file instead")
        raise SettingError(
            f"{self.name} has no published weights {version!r}; "
            f"expected {' or '.join(published.version for published in self.published)}"
        )
