"""What can go wrong, by meaning. The gRPC status of each is in one table, in `interceptors.py`.

FoveaError
├── RequestError                 the caller's, for this request, image, item or query
│   ├── InvalidRequest           it can never be answered as it is
│   │   └── InvalidImage         the bytes or pixels of one image
│   ├── NotFound
│   │   ├── ModelNotFound        lists the models there are
│   │   ├── CollectionNotFound   lists the collections there are
│   │   ├── ItemNotFound
│   │   └── SnapshotNotFound     lists the snapshots there are
│   ├── CollectionExists
│   ├── SnapshotExists
│   ├── SnapshotUnusable         a file that is truncated, another program's or of a newer release
│   ├── CollectionBusy           something is under way that can't be done twice at a time
│   ├── NotConfigured            the server lacks a setting that this needs; names it
│   ├── NoClasses                the model only makes embeddings
│   ├── VectorMismatch           another dimension or fingerprint than the collection's
│   ├── Overloaded               refused at the door; says when to come back
│   ├── DeadlineExpired          nobody waits for the answer any more
│   ├── Unavailable              loading or draining
│   └── InferenceFailed          this batch's run failed in the model runtime
└── StartError                   the server can't start
    ├── ConfigError
    ├── ManifestError            a model package that can't be trusted
    ├── ProviderUnavailable      an execution provider that isn't really there
    └── IndexUnusable            the retrieval index's folder can't be used
        └── IndexLocked          another process writes to it
"""

from collections.abc import Sequence


def shorten(value: object) -> str:
    """A caller's value as an error message shows it: its repr, at most 80 characters of it."""
    text = repr(value[:80] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 80 else text[:79] + "…"


def listed(names: Sequence[str], most: int = 20) -> str:
    """What there is, as an error message lists it: at most so many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


class FoveaError(Exception):
    """Any error of the service's own."""


class RequestError(FoveaError):
    """What a caller is told about a request, or about one part of it."""


class InvalidRequest(RequestError):
    """The request can never be answered as it is."""


class InvalidImage(InvalidRequest):
    """One image can't be used; its neighbours are answered."""


class NotFound(RequestError):
    """The request names something that isn't there."""


class ModelNotFound(NotFound):
    """No such model or version is loaded."""


class CollectionNotFound(NotFound):
    """No such collection."""


class ItemNotFound(NotFound):
    """No such item in the collection."""


class CollectionExists(RequestError):
    """The collection's name is taken."""


class SnapshotNotFound(NotFound):
    """No such snapshot."""


class SnapshotExists(RequestError):
    """The snapshot's name is taken."""


class SnapshotUnusable(RequestError):
    """The file isn't a snapshot that this release can read."""


class CollectionBusy(RequestError):
    """Something is under way with the collection that can't be done twice at a time."""


class NotConfigured(RequestError):
    """The server was started without a setting that this request needs."""


class NoClasses(RequestError):
    """A classification was asked of a model that only makes embeddings."""


class VectorMismatch(RequestError):
    """A vector of another dimension, or made by another model, than the collection's."""


class Overloaded(RequestError):
    """Refused before any work was done.

    Attributes:
        retry_after_ms: when there may be room again.
        reason: "full", or "predicted_late": it would have been answered after its deadline.
    """

    def __init__(self, message: str, retry_after_ms: float, reason: str = "full") -> None:
        super().__init__(message)
        self.retry_after_ms, self.reason = retry_after_ms, reason


class DeadlineExpired(RequestError):
    """The deadline passed, or is too near; the work that was left is not done.

    Attributes:
        reason: "expired", or "dropped_late": its run would have ended after the deadline.
    """

    def __init__(self, message: str, reason: str = "expired") -> None:
        super().__init__(message)
        self.reason = reason


class Unavailable(RequestError):
    """The server is loading or draining."""


class InferenceFailed(RequestError):
    """The model runtime failed on the batch that this image was in."""


class StartError(FoveaError):
    """The server can't start, or can't load a model, as configured."""


class ConfigError(StartError):
    """A setting has a value that can't be used."""


class ManifestError(StartError):
    """A model package is broken, incomplete or of another schema version."""


class ProviderUnavailable(StartError):
    """The requested execution provider isn't active."""


class IndexUnusable(StartError):
    """The retrieval index's folder can't be used: at the start, or later, as when the disk is full."""


class IndexLocked(IndexUnusable):
    """Another process writes to the retrieval index's folder."""
