"""Collections of images: embeds them through the pipeline, stores and finds them through the index."""

from pathlib import Path

from service.config import Config
from service.gallery.collections import Collections
from service.gallery.embedder import Embedder
from service.gallery.items import Items
from service.gallery.reembedding import Reembedding
from service.gallery.searches import Searches
from service.gallery.snapshots import Snapshots
from service.gallery.threads import IndexThreads
from service.gallery.writes import Writes
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.repository import ModelRepository
from service.retrieval.index import Index

_CLOSE_TIMEOUT_S = 30.0


class Gallery:
    """What the retrieval service does, by what it does it with.

    Attributes:
        collections: made, described, listed, dropped, flushed.
        items: written, deleted, read, counted.
        searches: the nearest items.
        snapshots: files of collections.
        reembedding: a collection's vectors made anew.
    """

    def __init__(
        self, index: Index, pipeline: Pipeline, repository: ModelRepository, config: Config, metrics: Metrics
    ) -> None:
        """Start the threads.

        Raises:
            ConfigError: a folder that the configuration names can't be used.
        """
        snapshot_folder = Path(config.snapshot_path) if config.snapshot_path else None
        self._index = index
        self._threads = threads = IndexThreads(config.search_thread_count)
        writes = Writes(index, threads)
        embedder = Embedder(pipeline, repository)
        self.collections = Collections(index, threads, writes, embedder)
        self.items = Items(index, threads, writes, self.collections, embedder, config.max_message_bytes)
        self.searches = Searches(
            index,
            threads,
            writes,
            embedder,
            metrics,
            max_top_k=config.max_top_k,
            max_reply_bytes=config.max_message_bytes,
        )
        self.snapshots = Snapshots(snapshot_folder, index, threads, writes)
        self.reembedding = Reembedding(index, threads, writes, self.collections, embedder, config)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> bool:
        """End the threads, then close the index; whether all ended within the time.

        An index in the middle of a write that hangs is left as it is: it survives the process's death.
        """
        image_readers_ended = self.reembedding.close(timeout_s)
        readers_ended, writers_ended = self._threads.close(timeout_s)
        if not writers_ended:
            return False
        self._index.close()
        return image_readers_ended and readers_ended
