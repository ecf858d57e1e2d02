"""What became of images that were to be indexed."""

from dataclasses import dataclass

from fovea import FoveaError

TAKEN = "its id is that of another image"


@dataclass(frozen=True)
class Broken:
    """An image that was not indexed.

    Attributes:
        id: its item's, or where it stands.
        error: why.
    """

    id: str
    error: FoveaError

    @property
    def is_taken(self) -> bool:
        """Whether another file's item has its id: then many others' are, and for one reason."""
        return self.error.message.startswith(TAKEN)


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
