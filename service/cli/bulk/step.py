"""What became of images that were to be indexed."""

from dataclasses import dataclass

from fovea import FoveaError


@dataclass(frozen=True)
class Broken:
    """An image that was not indexed.

    Attributes:
        id: its item's, or where it stands.
        error: why.
    """

    id: str
    error: FoveaError


@dataclass(frozen=True)
class Step:
    """What became of some images.

    Attributes:
        embedded: by the server.
        copied: written with a vector that was there already.
        unchanged: stored as they are now, and left alone.
        broken: could not be indexed.
    """

    embedded: int = 0
    copied: int = 0
    unchanged: int = 0
    broken: tuple[Broken, ...] = ()

    @property
    def images(self) -> int:
        """How many there were."""
        return self.embedded + self.copied + self.unchanged + len(self.broken)
