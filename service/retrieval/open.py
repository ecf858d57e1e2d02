"""Opens the retrieval engine that the configuration chooses; an engine's packages are imported only then."""

from typing import NoReturn

from service.config import Config
from service.errors import StartError
from service.retrieval.index import Index

# That call the index besides those that search: one writes, and some do what takes long.
_OTHER_THREADS = 4


def open_index(config: Config) -> Index:
    """The index; the caller closes it.

    Raises:
        StartError: the engine's packages aren't installed, or its folder or server can't be used.
    """
    match config.index_engine:
        case "pgvector":
            try:
                from service.retrieval.pgvector.engine import PgvectorIndex
            except ModuleNotFoundError as error:
                _missing(error, "pgvector")
            return PgvectorIndex(
                config.index_url,
                schema=config.index_schema,
                pool_size=config.search_thread_count + _OTHER_THREADS,
                **_threshold(config, "index_from_items"),
            )
        case "milvus":
            try:
                from service.retrieval.milvus.engine import MilvusIndex
            except ModuleNotFoundError as error:
                _missing(error, "milvus")
            return MilvusIndex(config.index_url, namespace=config.index_schema)
        case _:
            from service.retrieval.embedded import EmbeddedIndex

            return EmbeddedIndex(config.index_path, **_threshold(config, "min_tier_rows"))


def _threshold(config: Config, name: str) -> dict[str, int]:
    """The engine's own argument, where there is something to say."""
    return {name: config.approximate_from_items} if config.approximate_from_items else {}


def _missing(error: ModuleNotFoundError, engine: str) -> NoReturn:
    if error.name is None or error.name.partition(".")[0] == "service":
        raise error
    raise StartError(
        f"index_engine is {engine!r}, which needs {error.name}, and that isn't installed: "
        f"pip install 'fovea-serving[{engine}]' brings it"
    ) from error
