"""The collections there are, their names, and what they are made of.

A name is an alias, because Milvus moves one from collection to collection in one step, and lets two servers
not make the same. What a collection is made of stands in a collection of ours, for good, by its name in
Milvus.

Where a collection takes another name, it has both for a moment, or for ever if the process dies just then.
So it first gets a mark, an alias that tells which name it is to take: as soon as it has that name, the other
is no longer seen. What a crash leaves behind goes when the collection next takes a name.
"""

import json
import secrets
import time
from contextlib import suppress
from typing import Any

from pymilvus import DataType

from service.errors import CollectionNotFound, FoveaError, InvalidRequest, Unavailable, shorten
from service.retrieval.checks import is_name
from service.retrieval.collection_names import not_found, taken
from service.retrieval.index import CollectionSpec, Metric, Storage
from service.retrieval.milvus.conditions import quoted
from service.retrieval.milvus.names import Names
from service.retrieval.milvus.server import Server, TableGone
from service.retrieval.milvus.table import MAX_TEXT_BYTES, METRICS, VECTOR, Table
from service.retrieval.schema import AttributeType

# A collection without a name that is older was left behind by a crash; a younger one may get its name yet.
_ORPHAN_S = 3600
# How often names are listed that change while they are.
_LOOKS = 10
_STRONG = "Strong"


class Catalog:
    """The collections of one namespace. Changes are the caller's to keep apart within this process."""

    def __init__(self, server: Server, *, setup_timeout_s: float) -> None:
        """Make what is missing, and drop what a crash left behind.

        Args:
            server: has the collections.
            setup_timeout_s: for making one, or bringing it into memory.

        Raises:
            IndexUnusable, Unavailable, DeadlineExpired: see `Server.call`.
        """
        self._server, self._setup_timeout_s = server, setup_timeout_s
        self._names = Names(server.address.namespace)
        self._specs: dict[str, dict[str, Any]] = {}
        # Milvus takes a second one that is made alike as the same.
        if not server.call("has_collection", self._names.specs):
            fields = [
                ("name", DataType.VARCHAR, {"is_primary": True, "max_length": 255}),
                ("spec", DataType.VARCHAR, {"max_length": MAX_TEXT_BYTES}),
                (VECTOR, DataType.FLOAT_VECTOR, {"dim": 2}),  # each has to have one
            ]
            self._make(self._names.specs, fields, "flat", "L2")
        self.load(self._names.specs)
        for name in self._collections():
            if self._age_s(name) > _ORPHAN_S and not self._aliases(name):
                self.discard(name)

    def find(self, name: str) -> Table:
        """A collection by name.

        Raises:
            CollectionNotFound: lists those there are.
            TableGone: the name goes to another collection just now; look again.
        """
        collection = self._server.collection_of(self._names.alias(name)) if is_name(name) else None
        if collection is None:
            raise not_found(name, self._named())
        aliases = self._aliases(collection)
        if self._names.alias(name) not in aliases:
            raise TableGone(f"collection {shorten(name)} is being replaced; try again")
        if self._name_of(aliases) != name:
            raise not_found(name, self._named())
        return self._table(collection, name)

    def check_current(self, table: Table) -> None:
        """See that a collection still had its name after it was read.

        Milvus empties one that is dropped before it is gone, but its name goes first.

        Raises:
            TableGone: it hadn't; look again.
        """
        if self._server.collection_of(self._names.alias(table.spec.name)) != table.name:
            raise TableGone(f"collection {shorten(table.spec.name)} was dropped or replaced; try again")

    def list_all(self) -> list[Table]:
        """All collections, by name."""
        return [self._table(collection, name) for name, collection in sorted(self._named().items())]

    def add(self, spec: CollectionSpec, index_type: str) -> None:
        """Make a collection.

        Raises:
            CollectionExists: the name is taken.
        """
        self._check_free(spec.name)
        collection = f"{self._names.collection_prefix}{time.time_ns():016x}{secrets.token_hex(4)}"
        table = Table(collection, spec, index_type)
        try:
            row = {"name": collection, "spec": _packed(table), VECTOR: [0.0, 0.0]}
            self._server.call("upsert", self._names.specs, [row])
            self._make(collection, table.fields(), index_type, METRICS[spec.metric])
            self._name(collection, spec.name)
        except BaseException:
            with suppress(FoveaError):  # what can't be dropped now is an orphan
                self.discard(collection)
            raise

    def remove(self, table: Table) -> None:
        """Forget a collection and its items."""
        for alias in self._aliases(table.name):
            self._server.call("drop_alias", alias)
        self.discard(table.name)

    def rename(self, table: Table, name: str) -> None:
        """Give a collection a free name, in one step.

        Raises:
            CollectionExists: the name is taken.
        """
        self._check_free(name)
        self._tidy(table.name)
        self._mark(table.name, name)
        self._name(table.name, name)
        self._tidy(table.name)

    def replace(self, table: Table, by: Table) -> None:
        """Give a collection the name of another one, which goes, in one step.

        Raises:
            InvalidRequest: they are the same.
        """
        name = table.spec.name
        if table.name == by.name:
            raise InvalidRequest(f"collection {shorten(name)} by itself; expected another one")
        self._tidy(by.name)
        self._mark(by.name, name)
        self._server.call("alter_alias", by.name, self._names.alias(name))
        self._tidy(by.name)
        self.remove(table)

    def load(self, collection: str) -> None:
        """Bring a collection into memory, which searches need."""
        self._server.call("load_collection", collection, timeout_s=self._setup_timeout_s)

    def discard(self, collection: str) -> None:
        """Drop a collection that has no name; it is no error if it is gone."""
        with suppress(TableGone):
            self._server.call("drop_collection", collection)
        self._server.call("delete", self._names.specs, filter=f"name in [{quoted(collection)}]")
        self._specs.pop(collection, None)

    def _make(
        self,
        collection: str,
        fields: list[tuple[str, DataType, dict[str, Any]]],
        index_type: str,
        metric: str,
    ) -> None:
        schema = self._server.schema()
        for name, kind, arguments in fields:
            schema.add_field(name, kind, **arguments)
        links = {"M": 16, "efConstruction": 200} if index_type == "hnsw" else {}
        call, timeout_s = self._server.call, self._setup_timeout_s
        call("create_collection", collection, schema=schema, consistency_level=_STRONG, timeout_s=timeout_s)
        index = self._server.index(VECTOR, index_type.upper(), metric, links)
        # There is nothing to wait for: it is empty.
        call("create_index", collection, index, sync=False, timeout_s=timeout_s)
        self.load(collection)

    def _collections(self) -> list[str]:
        prefix = self._names.collection_prefix
        return [name for name in self._server.call("list_collections") if name.startswith(prefix)]

    def _age_s(self, collection: str) -> float:
        made_ns = int(collection.removeprefix(self._names.collection_prefix)[:16], 16)
        return (time.time_ns() - made_ns) / 1e9

    def _aliases(self, collection: str) -> list[str]:
        return list(self._server.call("list_aliases", collection)["aliases"])

    def _name_of(self, aliases: list[str]) -> str | None:
        names, marks = self._names.named(aliases), self._names.named(aliases, "t")
        return next(iter(names & marks or names), None)

    def _named(self) -> dict[str, str]:
        """Name → collection, of one moment: twice the same in a row, so it was so in between."""
        before: dict[str, str] | None = None
        for _ in range(_LOOKS):
            there: dict[str, str] = {}
            for collection in self._collections():
                with suppress(TableGone):
                    name = self._name_of(self._aliases(collection))
                    if name is not None:
                        there[name] = collection
            if there == before:
                return there
            before = there
        raise Unavailable(f"{self._server.address}: collections come and go too fast to be listed; try again")

    def _table(self, collection: str, name: str) -> Table:
        if collection not in self._specs:
            rows = self._server.call(
                "query",
                self._names.specs,
                filter=f"name in [{quoted(collection)}]",
                output_fields=["spec"],
                consistency_level=_STRONG,
            )
            if not rows:
                raise TableGone(f"collection {shorten(name)} is gone")
            self._specs[collection] = json.loads(rows[0]["spec"])
        return _unpacked(collection, name, self._specs[collection])

    def _check_free(self, name: str) -> None:
        with suppress(CollectionNotFound):
            self.find(name)
            raise taken(name)

    def _name(self, collection: str, name: str) -> None:
        """Give it a name that nobody has."""
        alias = self._names.alias(name)
        holder = self._server.collection_of(alias)
        if holder is not None:
            self._tidy(holder)  # it has another name since; a crash left this one
        try:
            self._server.call("create_alias", collection, alias)
        except FoveaError:
            self._check_free(name)  # somebody else was quicker
            raise

    def _mark(self, collection: str, name: str) -> None:
        alias = self._names.alias(name, "t")
        if self._server.collection_of(alias) is not None:
            self._server.call("drop_alias", alias)  # left by a crash: two don't take a name at once
        self._server.call("create_alias", collection, alias)

    def _tidy(self, collection: str) -> None:
        """Leave a collection its one name."""
        aliases = self._aliases(collection)
        name = self._name_of(aliases)
        kept = None if name is None else self._names.alias(name)
        # The mark goes last: until then it hides the others.
        for alias in sorted((alias for alias in aliases if alias != kept), key=self._is_mark):
            self._server.call("drop_alias", alias)

    def _is_mark(self, alias: str) -> bool:
        return bool(self._names.named([alias], "t"))


def _packed(table: Table) -> str:
    spec = table.spec
    return json.dumps(
        {
            "dimension": spec.dimension,
            "metric": spec.metric.value,
            "fingerprint": spec.fingerprint,
            "attributes": [[name, kind.value] for name, kind in spec.attributes.items()],
            "storage": spec.storage.value,
            "index_type": table.index_type,
        }
    )


def _unpacked(collection: str, name: str, packed: dict[str, Any]) -> Table:
    spec = CollectionSpec(
        name,
        packed["dimension"],
        Metric(packed["metric"]),
        packed["fingerprint"],
        {attribute: AttributeType(kind) for attribute, kind in packed["attributes"]},
        Storage(packed["storage"]),
    )
    return Table(collection, spec, packed["index_type"])
