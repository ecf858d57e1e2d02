"""Searches: queries by image, vector or stored id → the nearest items."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service.errors import InvalidRequest, ItemNotFound, RequestError, Unavailable, shorten
from service.gallery.building import check_visible
from service.gallery.checking import checked_together
from service.gallery.embedder import Embedder, Source, Vector, check_fingerprint, log_errors
from service.gallery.expansion import Expansion, check_expansion, expand
from service.gallery.items import MAX_ATTEMPTS
from service.gallery.threads import IndexThreads
from service.gallery.writes import Writes
from service.group import Priority
from service.metrics import Metrics
from service.model import Model
from service.pipeline import ImageSource
from service.retrieval.checks import check_options, check_queries
from service.retrieval.index import CollectionSpec, Index, Neighbor, SearchOptions

# Queries × top_k. What a search costs grows with it, however small the items are.
MAX_NEIGHBORS_PER_REQUEST = 10_000


@dataclass(frozen=True)
class StoredItem:
    """A query by a stored item's id."""

    id: str


Query = ImageSource | Vector | StoredItem


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Attributes:
        collection: where.
        queries: what for; an item that is asked for by its id is left out of its own result.
        top_k: how many neighbours of each.
        options: which of them.
        expansion: the queries are searched twice, the second time as `expand` makes them. The filter and
            the item left out hold for both, minimum score, groups and offset for the second.
        fingerprint: of the vectors; empty: not stated.
    """

    collection: str
    queries: Sequence[Query]
    top_k: int
    options: SearchOptions = field(default_factory=SearchOptions)
    expansion: Expansion | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Found:
    """The nearest items of each query, or its own error.

    Attributes:
        answers: in the queries' order.
        model: that made the queries' vectors: of images, or of stored items where it is loaded.
    """

    answers: list[list[Neighbor] | RequestError]
    model: Model | None


class Searches:
    """Answers searches; deadlines are loop times, in seconds."""

    def __init__(
        self,
        index: Index,
        threads: IndexThreads,
        writes: Writes,
        embedder: Embedder,
        metrics: Metrics,
        *,
        max_top_k: int,
        max_reply_bytes: int,
    ) -> None:
        self._index, self._threads, self._writes = index, threads, writes
        self._embedder, self._metrics = embedder, metrics
        self._max_top_k, self._max_reply_bytes = max_top_k, max_reply_bytes

    async def search(self, wanted: Search, deadline: float) -> Found:
        """The nearest items of each query.

        Raises:
            CollectionNotFound, DeadlineExpired, Overloaded.
            VectorMismatch: the fingerprint isn't the collection's, or images are for a model that isn't
                loaded.
            InvalidRequest: options that can't be met, more than `MAX_NEIGHBORS_PER_REQUEST` neighbours, or
                neighbours larger than a message may be.
        """
        self._check_numbers(wanted)
        check_visible(wanted.collection)
        for _ in range(MAX_ATTEMPTS):
            generation = self._writes.generation(wanted.collection)
            try:
                found = await self._search(wanted, deadline)
            except RequestError:
                if generation == self._writes.generation(wanted.collection):
                    raise
                continue
            if generation == self._writes.generation(wanted.collection):
                log_errors("queries_failed", wanted.collection, found.answers)
                return found
            # Another collection took the name in between: its vectors may be another model's.
        raise Unavailable(
            f"collection {wanted.collection} was replaced {MAX_ATTEMPTS} times meanwhile; try again later"
        )

    async def _search(self, wanted: Search, deadline: float) -> Found:
        started, model = time.perf_counter(), None
        if any(not isinstance(query, StoredItem | np.ndarray) for query in wanted.queries):
            spec, sources = await self._threads.read(partial(self._sources, wanted), deadline)
            vectors, model = await self._embedder.vectors(spec, sources, deadline, Priority.INTERACTIVE)
            started, before_s = time.perf_counter(), 0.0
            answers = await self._threads.read(partial(self._find, spec, vectors, wanted), deadline)
        else:
            answers, model, before_s = await self._threads.read(partial(self._find_at_once, wanted), deadline)
        self._metrics.search.observe(time.perf_counter() - started - before_s)
        return Found(answers, model)

    def _find_at_once(
        self, wanted: Search
    ) -> tuple[list[list[Neighbor] | RequestError], Model | None, float]:
        """Without images a search goes to a thread once; the model that made stored queries' vectors, and how
        many seconds passed before the search began.
        """
        started = time.perf_counter()
        spec, sources = self._sources(wanted)
        vectors = [source for source in sources if isinstance(source, RequestError | np.ndarray)]
        stored = any(isinstance(query, StoredItem) for query in wanted.queries)
        model = self._embedder.model_of(spec) if stored else None
        before_s = time.perf_counter() - started
        return self._find(spec, vectors, wanted), model, before_s

    def _sources(self, wanted: Search) -> tuple[CollectionSpec, list[Source]]:
        """What the collection is made of, and the queries with vectors or errors for stored ids."""
        spec = self._index.describe(wanted.collection).spec
        check_fingerprint(spec, wanted.fingerprint)
        check_options(spec, wanted.options)
        if wanted.expansion is not None:
            check_expansion(spec, wanted.expansion)
        ids = [query.id for query in wanted.queries if isinstance(query, StoredItem)]
        stored = self._index.vectors(wanted.collection, ids) if ids else {}
        return spec, [
            stored.get(
                query.id, ItemNotFound(f"no item {shorten(query.id)} in collection {wanted.collection}")
            )
            if isinstance(query, StoredItem)
            else query
            for query in wanted.queries
        ]

    def _find(
        self, spec: CollectionSpec, vectors: Sequence[Vector | RequestError], wanted: Search
    ) -> list[list[Neighbor] | RequestError]:
        results = checked_together(partial(check_queries, spec), vectors)
        good = [number for number, vector in enumerate(results) if not isinstance(vector, RequestError)]
        if not good:
            return [error for error in results if isinstance(error, RequestError)]
        queries = np.stack([vector for vector in results if not isinstance(vector, RequestError)])
        asked = [wanted.queries[number] for number in good]
        excluded = [query.id if isinstance(query, StoredItem) else None for query in asked]
        search = partial(
            self._index.search,
            spec.name,
            excluded_ids=excluded,
            max_reply_bytes=self._max_reply_bytes,
        )
        if wanted.expansion is not None:
            queries = self._expanded(spec, queries, wanted.expansion, wanted.options, search)
        found = iter(search(queries=queries, top_k=wanted.top_k, options=wanted.options))
        return [vector if isinstance(vector, RequestError) else next(found) for vector in results]

    def _expanded(
        self,
        spec: CollectionSpec,
        queries: Vector,
        expansion: Expansion,
        options: SearchOptions,
        search: "partial[list[list[Neighbor]]]",
    ) -> Vector:
        first_pass = SearchOptions(filter=options.filter, recall=options.recall)
        nearest = search(queries=queries, top_k=expansion.neighbors, options=first_pass)
        ids = list(dict.fromkeys(neighbor.id for neighbors in nearest for neighbor in neighbors))
        vectors = self._index.vectors(spec.name, ids)
        return np.stack(
            [
                expand(spec.metric, query, neighbors, vectors, expansion.alpha)
                for query, neighbors in zip(queries, nearest, strict=True)
            ]
        )

    def _check_numbers(self, wanted: Search) -> None:
        top_k, offset = wanted.top_k, wanted.options.offset
        if top_k + offset > self._max_top_k:
            name = "top_k is" if not offset else f"offset {offset} and top_k"
            both = f" {top_k}" if not offset else f" {top_k} are {top_k + offset} together"
            raise InvalidRequest(f"{name}{both}; expected at most {self._max_top_k}")
        _check_neighbors(len(wanted.queries), "top_k", top_k)
        if wanted.expansion is not None:
            neighbors = wanted.expansion.neighbors
            if neighbors > self._max_top_k:
                raise InvalidRequest(
                    f"query_expansion has {neighbors} neighbors; expected at most {self._max_top_k}"
                )
            _check_neighbors(len(wanted.queries), "query_expansion's neighbors", neighbors)


def _check_neighbors(queries: int, name: str, number: int) -> None:
    if queries * number > MAX_NEIGHBORS_PER_REQUEST:
        raise InvalidRequest(
            f"{queries} queries × {name} {number} are {queries * number:,} neighbours; expected at most "
            f"{MAX_NEIGHBORS_PER_REQUEST:,} in one request: send fewer queries at a time, or ask for "
            "fewer neighbours"
        )
