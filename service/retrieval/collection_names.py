"""Collections' names: which are the server's own, and the errors of one that is missing or taken."""

from collections.abc import Iterable

from service.errors import CollectionExists, CollectionNotFound, listed, shorten

# Of collections that are being built: nobody asks for them, and they soon take another name or go.
BUILDING_PREFIX = "fovea-building."


def is_building(name: str) -> bool:
    """Whether a collection is being built, or was when a server died."""
    return name.startswith(BUILDING_PREFIX)


def not_found(name: str, there: Iterable[str]) -> CollectionNotFound:
    """The error that lists those there are, but for those that are being built."""
    names = listed(sorted(other for other in there if not is_building(other)))
    return CollectionNotFound(f"no collection {shorten(name)}; there are: {names}")


def taken(name: str) -> CollectionExists:
    """The error of a name that another collection has."""
    return CollectionExists(f"collection {shorten(name)} exists already; drop it, or choose another name")
