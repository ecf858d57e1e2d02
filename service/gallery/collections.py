"""Collections: made, described, listed, dropped, brought up to date."""

from dataclasses import replace

from service.gallery.building import check_free, check_visible
from service.gallery.embedder import Embedder
from service.gallery.threads import IndexThreads
from service.gallery.writes import Writes
from service.model import Model
from service.retrieval.collection_names import is_building
from service.retrieval.index import CollectionInfo, CollectionSpec, Index


class Collections:
    """What the retrieval service does with whole collections; deadlines are loop times, in seconds.

    Methods that name a collection raise CollectionNotFound; all raise DeadlineExpired and Overloaded.
    """

    def __init__(self, index: Index, threads: IndexThreads, writes: Writes, embedder: Embedder) -> None:
        self._index, self._threads, self._writes, self._embedder = index, threads, writes, embedder

    def model_of(self, spec: CollectionSpec) -> Model | None:
        """The loaded model whose vectors the collection takes."""
        return self._embedder.model_of(spec)

    async def create_for_model(
        self, spec: CollectionSpec, model_name: str, version: str, deadline: float
    ) -> CollectionInfo:
        """Make a collection of a model's vectors; the spec's dimension and fingerprint become the model's.

        Raises:
            CollectionExists, InvalidRequest, ModelNotFound, Unavailable.
        """
        model = self._embedder.model_named(model_name, version)
        dimension = model.manifest.embedding_dimension
        return await self.create(replace(spec, dimension=dimension, fingerprint=model.fingerprint), deadline)

    async def create(self, spec: CollectionSpec, deadline: float) -> CollectionInfo:
        """Make a collection.

        Raises:
            CollectionExists, InvalidRequest.
        """
        check_free(spec.name)
        await self._writes.create(spec, deadline)
        return CollectionInfo(spec, 0)

    async def describe(self, collection: str, deadline: float, *, patient: bool = False) -> CollectionInfo:
        """What the collection is made of, and its size; patience as in `IndexThreads.read`."""
        check_visible(collection)
        return await self._threads.read(lambda: self._index.describe(collection), deadline, patient=patient)

    async def list_all(self, deadline: float) -> list[CollectionInfo]:
        """All collections, by name."""
        infos = await self._threads.read(self._index.list_collections, deadline)
        return [info for info in infos if not is_building(info.spec.name)]

    async def drop(self, collection: str, deadline: float) -> None:
        """Remove a collection and its items."""
        check_visible(collection)
        await self._writes.drop(collection, deadline)

    async def flush(self, collection: str, deadline: float) -> None:
        """Wait until all that is derived from the items is up to date."""
        check_visible(collection)
        await self._threads.upkeep(lambda _: self._index.flush(collection), deadline)
