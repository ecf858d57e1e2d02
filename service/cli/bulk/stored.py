"""What a collection has already: by id, and by the content of the image."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from fovea import Client, Collection, In, StoredItem
from numpy.typing import NDArray

from service.cli.bulk.attributes import SHA256

# Some 100 MB of digests and ids at most; older ones are asked of the server.
_MOST_REMEMBERED = 500_000


class Stored:
    """Asks the server, which alone knows what is on its disk, and remembers what it wrote itself.

    Attributes:
        looks_up: whether the collection finds items by their content: it declares `sha256`, a string.
    """

    def __init__(self, client: Client, collection: Collection) -> None:
        self._client, self._name = client, collection.name
        self._had_items = collection.count > 0
        self.looks_up = collection.attributes.get(SHA256) == "string"
        self._recent: OrderedDict[str, str] = OrderedDict()
        self._forgotten = False
        self._lock = threading.Lock()

    def items(self, ids: Sequence[str]) -> dict[str, StoredItem]:
        """Those that are there, by id, without vectors."""
        if not self._had_items:
            return {}
        return {item.id: item for item in self._client.get(self._name, ids)}

    def holders(self, digests: Iterable[str]) -> dict[str, str]:
        """An item's id for each content that the collection has, by its digest."""
        with self._lock:
            found = {digest: self._recent[digest] for digest in digests if digest in self._recent}
            asks = self.looks_up and (self._had_items or self._forgotten)
        missing = set(digests) - found.keys()
        if asks and missing:
            condition = In(SHA256, tuple(sorted(missing)))
            for item in self._client.scan(self._name, filter=condition):
                digest = str(item.attributes[SHA256])
                self.remember(digest, item.id)
                found.setdefault(digest, item.id)
                missing.discard(digest)
                if not missing:
                    break
        return found

    def knows(self, digest: str) -> bool:
        """Whether this run has met an item with this content."""
        with self._lock:
            return digest in self._recent

    def remember(self, digest: str, item_id: str) -> None:
        """An item with this content is on the server's disk."""
        with self._lock:
            self._recent[digest] = item_id
            self._recent.move_to_end(digest)
            if len(self._recent) > _MOST_REMEMBERED:
                self._recent.popitem(last=False)
                self._forgotten = True

    def vectors(self, holders: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        """The vectors, float32 [dimension], of items that still have the content, by its digest.

        Args:
            holders: digest → id.
        """
        items = self._client.get(self._name, list(dict.fromkeys(holders.values())), include_vectors=True)
        by_id = {item.id: item for item in items}
        found: dict[str, NDArray[np.float32]] = {}
        for digest, item_id in holders.items():
            item = by_id.get(item_id)
            # Somebody may have written another image under that id, or deleted it.
            if item is not None and item.vector is not None and item.attributes.get(SHA256) == digest:
                found[digest] = item.vector
        return found
