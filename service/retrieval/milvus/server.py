"""Calls to Milvus: each with a deadline, and errors by their meaning."""

import logging
import threading
from typing import Any, NoReturn

import grpc
from pymilvus import MilvusClient, MilvusException

from service.errors import DeadlineExpired, IndexUnusable, StartError, Unavailable
from service.retrieval.milvus.address import Address

# pymilvus writes each error to stderr, with a traceback, and raises it as well: who catches it says more.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

_COLLECTION_NOT_FOUND, _NOT_LOADED, _ALIAS_NOT_FOUND = 100, 101, 1600
# Too busy, not serving yet, or a node is lost: all of it passes.
_PASSING = frozenset({2, 3, 4, 7, 8, 9, 500, 501, 502, 503, 504, 901})
_LOST = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
# A server that is back is found again within a second or so, whoever else has tried it.
_CHANNEL = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}


class TableGone(Unavailable):
    """A collection was dropped or replaced between looking it up and using it; look again."""


class NotLoaded(Unavailable):
    """A collection isn't in memory, as when somebody released it; load it.

    Attributes:
        collection: its name in Milvus.
    """

    def __init__(self, message: str, collection: str) -> None:
        super().__init__(message)
        self.collection = collection


class Server:
    """A connection to Milvus. For any number of threads."""

    def __init__(self, address: Address, *, connect_timeout_s: float, call_timeout_s: float) -> None:
        """Connect.

        Args:
            address: where.
            connect_timeout_s: until the server has answered.
            call_timeout_s: of each call that names no other; a lost connection is tried anew for as long.

        Raises:
            IndexUnusable: the server can't be reached, or lets us not in; names it.
        """
        self.address, self._call_timeout_s = address, call_timeout_s
        self._closed = threading.Event()
        secrets = {"user": address.user} if address.user else {}
        secrets["password" if address.user else "token"] = address.password
        try:
            self._client: Any = MilvusClient(
                address.uri,
                db_name=address.database,
                timeout=connect_timeout_s,
                dedicated=True,  # others' clients in this process share their connection
                grpc_options=_CHANNEL,
                **secrets,
            )
        except (MilvusException, grpc.RpcError, ValueError) as error:
            raise IndexUnusable(f"{address}: {address.told(error)}") from None

    def call(self, method: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """One of pymilvus's calls.

        Raises:
            TableGone, NotLoaded: see there.
            Unavailable: the server is gone, or has too much to do. A write may have been done all the same.
            DeadlineExpired: it took too long.
            IndexUnusable: all else that it refuses.
        """
        if self._closed.is_set():
            raise Unavailable("the index is closed")
        timeout_s = timeout_s or self._call_timeout_s
        try:
            return getattr(self._client, method)(*arguments, timeout=timeout_s, **named)
        except (MilvusException, grpc.RpcError) as error:
            self._translate(error, method, arguments, timeout_s)

    def collection_of(self, alias: str) -> str | None:
        """The collection that an alias stands for."""
        try:
            return str(self.call("describe_alias", alias)["collection_name"])
        except (TableGone, _NoSuchAlias):
            return None

    def schema(self) -> Any:
        """A schema without fields."""
        return self._client.create_schema(auto_id=False, enable_dynamic_field=False)

    def index(self, field: str, index_type: str, metric: str, parameters: dict[str, int]) -> Any:
        """What an index is to be."""
        parameters_of = self._client.prepare_index_params()
        parameters_of.add_index(field, index_type=index_type, metric_type=metric, params=parameters)
        return parameters_of

    def _translate(
        self, error: Exception, method: str, arguments: tuple[Any, ...], timeout_s: float
    ) -> NoReturn:
        told = f"{self.address}: {method}: {self.address.told(error)}"
        code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
        if self._closed.is_set():
            raise Unavailable("the index is closed") from None
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise DeadlineExpired(
                f"{self.address}: {method} took longer than {timeout_s:g} s; what it changes may be done all "
                "the same"
            ) from None
        if code in _LOST:
            raise Unavailable(told) from None
        if code == _ALIAS_NOT_FOUND:
            raise _NoSuchAlias(told) from None
        # milvus-lite gives its listing no code where it meets a collection that is being dropped.
        if code == _COLLECTION_NOT_FOUND or (method == "list_collections" and "does not exist" in told):
            raise TableGone(told) from None
        if code == _NOT_LOADED:
            raise NotLoaded(told, str(arguments[0])) from None
        if code in _PASSING:
            raise Unavailable(told) from None
        raise IndexUnusable(told) from None

    def close(self) -> None:
        """End the connection; a second call does nothing."""
        if not self._closed.is_set():
            self._closed.set()
            self._client.close()


class _NoSuchAlias(StartError):
    """Caught above, wherever it can come."""
