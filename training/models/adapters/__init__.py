"""Networks of other libraries, by their names there: `timm:xception`, `torchvision:vgg16`."""

from collections.abc import Callable

from training.models.adapters.from_timm import timm_architecture
from training.models.adapters.from_torchvision import torchvision_architecture
from training.models.architecture import Architecture

LIBRARIES: dict[str, Callable[[str], Architecture]] = {
    "timm": timm_architecture,
    "torchvision": torchvision_architecture,
}
