"""The architectures by name. A new one is one more entry in `catalog.py` and `architecture_names.py`."""

from training.errors import UnknownArchitecture
from training.models import catalog
from training.models.adapters import LIBRARIES
from training.models.architecture import Architecture, Published
from training.models.classifier import Classifier

__all__ = ["ARCHITECTURES", "Architecture", "Classifier", "Published", "architecture"]

ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for entry in catalog.ENTRIES}


def architecture(name: str) -> Architecture:
    """Look an architecture up; `timm:<name>` and `torchvision:<name>` ask those libraries.

    Raises:
        UnknownArchitecture: lists the supported ones.
        MissingExtra: of an adapter, its library isn't installed or can't be imported.
    """
    library, colon, inner = name.partition(":")
    if colon and library in LIBRARIES:
        return LIBRARIES[library](inner)
    if name not in ARCHITECTURES:
        raise UnknownArchitecture(
            f"architecture {name!r} isn't known; supported: {', '.join(ARCHITECTURES)}, and through their "
            f"libraries {' and '.join(f'{library}:<name>' for library in LIBRARIES)}"
        )
    return ARCHITECTURES[name]
