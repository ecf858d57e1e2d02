"""Collections that are being built: they have a name of the server's own until they take their place."""

import secrets
import time

import structlog

from service.errors import CollectionNotFound, InvalidRequest, shorten
from service.retrieval.collection_names import BUILDING_PREFIX, is_building
from service.retrieval.index import Index

_DAY_S = 86_400.0
log = structlog.get_logger()


def new_name() -> str:
    """A name for a collection that is being built; nobody else uses it, and it says since when."""
    return f"{BUILDING_PREFIX}{int(time.time()):x}.{secrets.token_hex(8)}"


def check_free(name: str) -> None:
    """Raises:
    InvalidRequest: callers may not make a collection of this name.
    """
    if is_building(name):
        raise InvalidRequest(
            f"collection name {shorten(name)}; expected one that doesn't start with {BUILDING_PREFIX!r}: "
            "these are the server's own"
        )


def check_visible(name: str) -> None:
    """Raises:
    CollectionNotFound: the collection is being built.
    """
    if is_building(name):
        raise CollectionNotFound(f"no collection {shorten(name)}")


def drop_left_overs(index: Index, *, shared: bool) -> None:
    """Drop what servers that died were building.

    Args:
        index: just opened.
        shared: whether other servers use it now; then what is younger than a day may be theirs, and stays.
    """
    for info in index.list_collections():
        name = info.spec.name
        if is_building(name) and (not shared or _age_s(name) > _DAY_S):
            index.drop(name)
            log.info("left_over_dropped", collection=name, items=info.count)


def _age_s(name: str) -> float:
    since, _, _ = name.removeprefix(BUILDING_PREFIX).partition(".")
    try:
        return time.time() - int(since, 16)
    except ValueError:
        return 0.0
