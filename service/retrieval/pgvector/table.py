"""A collection's table: its columns, and the SQL that compares vectors and attributes in it."""

import math
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from service.retrieval.index import CollectionInfo, CollectionSpec, Metric, Storage
from service.retrieval.pgvector import vectors
from service.retrieval.schema import AttributeType

# Of a `vector` and of a `halfvec`.
MAX_DIMENSION = 16_000
# Of the column types that HNSW takes: an index entry must fit into one page.
_MAX_INDEXED = {Storage.FLOAT32: 2000, Storage.FLOAT16: 4000}
# Lengths that differ by no more than rounding.
_ALIKE = 1.01
# B-trees take entries of 2.7 kB at most; so of strings they have only the first characters.
PREFIX_CHARACTERS = 64
COLUMN_TYPES = {
    AttributeType.STRING: "text",
    AttributeType.INT: "int8",
    AttributeType.FLOAT: "float8",
    AttributeType.BOOL: "bool",
}
# Vectors of length 1 are compared by their inner product. Both distances fall as the score rises.
_OPERATORS = {Metric.COSINE: "<#>", Metric.INNER_PRODUCT: "<#>", Metric.L2: "<->"}
_CLASSES = {Metric.COSINE: "ip_ops", Metric.INNER_PRODUCT: "ip_ops", Metric.L2: "l2_ops"}


@dataclass(frozen=True)
class Table:
    """Where a collection's items are.

    Attributes:
        key: of the collection; never given out twice.
        spec: what the collection is made of.
        count: how many items it has.
        smallest_norm: no vector in it is shorter.
        largest_norm: no vector in it is longer.
        has_index: whether the HNSW index is there, and complete.
    """

    key: int
    spec: CollectionSpec
    count: int = 0
    smallest_norm: float = math.inf
    largest_norm: float = 0.0
    has_index: bool = False

    @property
    def info(self) -> CollectionInfo:
        """As callers see it."""
        return CollectionInfo(self.spec, self.count, "hnsw" if self.indexed else "flat")

    @property
    def indexed(self) -> bool:
        """Whether searches may use the HNSW index."""
        return self.has_index and self.indexed_as is not None

    @property
    def name(self) -> Identifier:
        """The table's."""
        return Identifier(f"items_{self.key}")

    @property
    def index_name(self) -> Identifier:
        """The HNSW index's."""
        return Identifier(f"items_{self.key}_hnsw")

    def column(self, attribute: str) -> Identifier:
        """Where a declared attribute is: never a name that a caller chose."""
        return Identifier(f"a{1 + list(self.spec.attributes).index(attribute)}")

    @property
    def columns(self) -> list[tuple[Identifier, str]]:
        """Those of all items, with their types."""
        fixed = [("id", "text"), ("embedding", vectors.type_name(self.spec.storage)), ("attributes", "text")]
        return [(Identifier(name), kind) for name, kind in fixed] + [
            (self.column(name), COLUMN_TYPES[kind]) for name, kind in self.spec.attributes.items()
        ]

    @property
    def distance(self) -> Composed:
        """From the stored vector to a parameter, a `vector`: what pgvector computes of float32 numbers."""
        return SQL("embedding{} {} %s").format(
            SQL("::vector" if self.spec.storage is Storage.FLOAT16 else ""), SQL(_OPERATORS[self.spec.metric])
        )

    @property
    def indexed_as(self) -> Storage | None:
        """What numbers an HNSW index of this table holds; None: it can't have one, and is always scanned."""
        dimension, storage = self.spec.dimension, self.spec.storage
        # By the inner product long vectors are near to all and short ones to none, not even to themselves: a
        # graph of such misses much of what it should find.
        if self.spec.metric is Metric.INNER_PRODUCT and self.largest_norm > _ALIKE * self.smallest_norm:
            return None
        if dimension <= _MAX_INDEXED[storage]:
            return storage
        # Halves hold all vectors of length 1, while a longer one could be refused when it is written.
        if dimension <= _MAX_INDEXED[Storage.FLOAT16] and self.spec.metric is Metric.COSINE:
            return Storage.FLOAT16
        return None

    @property
    def indexed_distance(self) -> Composed:
        """As `distance`, but as the index knows it: exact only to the numbers that it holds."""
        cast = f"::halfvec({self.spec.dimension})"
        return SQL("embedding{} {} %s{}").format(
            SQL(cast if self.indexed_as is not self.spec.storage else ""),
            SQL(_OPERATORS[self.spec.metric]),
            SQL(cast if self.indexed_as is Storage.FLOAT16 else ""),
        )

    def create(self) -> list[Composed]:
        """Statements that make the table and the indexes of its attributes."""
        columns: list[Composable] = [
            SQL('id text COLLATE "C" PRIMARY KEY'),
            # The order of writing; of the sequence no number comes twice.
            SQL("sequence bigint GENERATED ALWAYS AS IDENTITY UNIQUE"),
            SQL(f"embedding {vectors.type_name(self.spec.storage)}({self.spec.dimension}) NOT NULL"),
            SQL("attributes text NOT NULL"),  # all of them, as JSON; the columns repeat those declared
        ]
        indexes = []
        for name, kind in self.spec.attributes.items():
            column = self.column(name)
            collation = SQL(' COLLATE "C"' if kind is AttributeType.STRING else "")
            columns.append(SQL("{} {}{}").format(column, SQL(COLUMN_TYPES[kind]), collation))
            prefix = SQL("left({}, {})").format(column, Literal(PREFIX_CHARACTERS))
            indexes.append(
                SQL("CREATE INDEX ON {} ({})").format(
                    self.name, prefix if kind is AttributeType.STRING else column
                )
            )
        return [SQL("CREATE TABLE {} ({})").format(self.name, SQL(", ").join(columns)), *indexes]

    def create_index(self, links: int, candidates: int) -> Composed:
        """The statement that makes the HNSW index beside searches and writes.

        Args:
            links: of each item in the graph ("m").
            candidates: from which they are chosen ("ef_construction").
        """
        indexed_as = self.indexed_as
        assert indexed_as is not None  # noqa: S101 - the builder asks before
        cast = f"::halfvec({self.spec.dimension})" if indexed_as is not self.spec.storage else ""
        operators = f"{vectors.type_name(indexed_as)}_{_CLASSES[self.spec.metric]}"
        return SQL(
            "CREATE INDEX CONCURRENTLY {} ON {} USING hnsw ((embedding{}) {}) "
            "WITH (m = {}, ef_construction = {})"
        ).format(self.index_name, self.name, SQL(cast), SQL(operators), Literal(links), Literal(candidates))
