"""A collection's items in Milvus: their fields, and how values of attributes are kept in them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType

from service.retrieval.checks import Batch, unpack_attributes
from service.retrieval.index import CollectionSpec, Item, Metric
from service.retrieval.schema import AttributeType, AttributeValue

# Of a float vector; and of a collection, of which this engine needs four.
MAX_DIMENSION, MAX_ATTRIBUTES = 32_768, 60
MAX_ID_BYTES, MAX_TEXT_BYTES = 512, 65_535
ID, SEQUENCE, ATTRIBUTES, VECTOR = "id", "sequence", "attributes", "vector"
# Vectors of length 1 are compared by their inner product.
METRICS = {Metric.COSINE: "IP", Metric.INNER_PRODUCT: "IP", Metric.L2: "L2"}


@dataclass(frozen=True)
class Table:
    """Where a collection's items are.

    Attributes:
        name: of the collection in Milvus; never given out twice.
        spec: what the collection is made of.
        index_type: "flat" or "hnsw".
    """

    name: str
    spec: CollectionSpec
    index_type: str

    def column(self, attribute: str) -> str:
        """Where a declared attribute is: never a name that a caller chose."""
        return f"a{1 + list(self.spec.attributes).index(attribute)}"

    def fields(self) -> list[tuple[str, DataType, dict[str, Any]]]:
        """Name, type and arguments of each field."""
        text = {"max_length": MAX_TEXT_BYTES}
        return [
            (ID, DataType.VARCHAR, {"is_primary": True, "max_length": MAX_ID_BYTES}),
            # The order of writing.
            (SEQUENCE, DataType.INT64, {}),
            # All of them, as JSON without its braces, which then fits; the columns repeat those declared.
            (ATTRIBUTES, DataType.VARCHAR, text),
            (VECTOR, DataType.FLOAT_VECTOR, {"dim": self.spec.dimension}),
            *((self.column(name), DataType.VARCHAR, text) for name in self.spec.attributes),
        ]

    def rows(self, batch: Batch, first_sequence: int) -> list[dict[str, Any]]:
        """Items as Milvus takes them."""
        columns = [(name, self.column(name), kind) for name, kind in self.spec.attributes.items()]
        rows = []
        for number, name in enumerate(batch.ids):
            text = batch.attributes[number]
            row = {
                ID: name,
                SEQUENCE: first_sequence + number,
                ATTRIBUTES: text[1:-1],
                VECTOR: batch.vectors[number],
            }
            values = unpack_attributes(text) if columns else {}
            for attribute, column, kind in columns:
                row[column] = key_of(kind, values[attribute]) if attribute in values else ""
            rows.append(row)
        return rows


def key_of(kind: AttributeType, value: AttributeValue) -> str:
    """A string that sorts, by code point, as values of the type do; never "", which is a missing one.

    Milvus 2.3 has no NULL, can't read the smallest int in an expression, and refuses some floats.
    """
    match kind:
        case AttributeType.STRING:
            return f"={value}"
        case AttributeType.BOOL:
            return "1" if value else "0"
        case AttributeType.INT:
            return f"{int(value) + 2**63:016x}"
        case AttributeType.FLOAT:
            # IEEE 754: as whole numbers, doubles sort by magnitude. + 0.0: there is one zero.
            [bits] = struct.unpack(">Q", struct.pack(">d", float(value) + 0.0))
            return f"{bits ^ (2**64 - 1 if bits >> 63 else 2**63):016x}"


def attributes_text(row: dict[str, Any]) -> str:
    """The attributes of a row that was read, as JSON."""
    return f"{{{row[ATTRIBUTES]}}}"


def vectors_of(rows: Sequence[dict[str, Any]], dimension: int) -> NDArray[np.float32]:
    """The vectors of rows that were read, float32 [rows, dimension]; the caller's own."""
    vectors = np.empty((len(rows), dimension), np.float32)
    for number, row in enumerate(rows):
        vectors[number] = row[VECTOR]
    return vectors


def items_of(rows: Sequence[dict[str, Any]]) -> list[Item]:
    """Items that were read; their vectors are [0] where they weren't."""
    return [
        Item(row[ID], np.array(row.get(VECTOR, ()), np.float32), unpack_attributes(attributes_text(row)))
        for row in rows
    ]
