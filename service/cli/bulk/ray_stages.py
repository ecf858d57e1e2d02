"""What Ray's workers do: look at images, read them, embed them in ONNX Runtime, write them to the server.

Each takes and gives a batch as Ray Data has it: column → array, one row an image. A worker that fails as a
whole says so in the column `fatal`, for Ray's own errors carry a page of its frames.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fovea import Client, Collection, FoveaError, Item
from numpy.typing import NDArray

from service.cli.bulk.entry import Entry, Unusable, content_of, digest
from service.cli.bulk.look import Look, Rules
from service.cli.bulk.stored import Stored
from service.cli.bulk.writer import Work, Writer
from service.errors import InferenceFailed, InvalidImage
from service.image import open_image
from service.manifest import read_manifest
from service.model_settings import ModelSettings
from service.preprocess import Preprocessing, preprocess

Batch = dict[str, NDArray[Any]]


def column(values: list[Any]) -> NDArray[Any]:
    """Objects as a column."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


class Looking:
    """`entry` → `work`: what has to be written, None where nothing has, or a text that says why not."""

    def __init__(self, address: str, timeout_s: float, collection: Collection, rules: Rules) -> None:
        self._stored = Stored(Client(address, timeout=timeout_s), collection)
        self._look = Look(collection.attributes, rules)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Batch:
        entries: list[Entry] = list(batch["entry"])
        try:
            stored = self._stored.items([entry.id for entry in entries if not entry.fault])
        except FoveaError as error:
            return {"id": column([entry.id for entry in entries]), "work": column([error] * len(entries))}
        works: list[Work | str | None] = []
        for entry in entries:
            there = stored.get(entry.id)
            try:
                work = self._look.at(entry, there.attributes if there else {})
                # It is read again where it is embedded: pictures don't pass through here.
                works.append(replace(work, content=b"") if work else None)
            except Unusable as error:
                works.append(str(error))
        return {"id": column([entry.id for entry in entries]), "work": column(works)}


class Reading:
    """`work` → `pixels`, uint8 [images, height, width, 3], as the model takes them; or `error`, a text."""

    def __init__(self, package: Path) -> None:
        self._preprocessing = Preprocessing.of(read_manifest(package))

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Batch:
        works: list[Work] = list(batch["work"])
        shape = (self._preprocessing.crop_height, self._preprocessing.crop_width, 3)
        pixels = np.zeros((len(works), *shape), np.uint8)
        errors: list[str] = []
        for number, work in enumerate(works):
            try:
                pixels[number] = self._read(work)
                errors.append("")
            except (Unusable, InvalidImage) as error:
                errors.append(str(error))
        return {"work": column(works), "pixels": pixels, "error": column(errors)}

    def _read(self, work: Work) -> NDArray[np.uint8]:
        content = content_of(work.place)
        if digest(content) != work.sha256:
            raise Unusable("was written while it was being indexed; index it again")
        opened = open_image(content, least_short_side=self._preprocessing.least_short_side)
        return preprocess(opened.decode(), self._preprocessing)


class Embedding:
    """`pixels` → `vector`, float32 [images, dimension]; an actor keeps its session."""

    def __init__(self, package: Path, precision: str, threads: int) -> None:
        from service.session import open_sessions  # ONNX Runtime, which only these actors need

        self._dimension = read_manifest(package).embedding_dimension
        settings = ModelSettings(precision=precision, intra_op_threads=threads, max_batch_size=16)
        (self._session,) = open_sessions(read_manifest(package), settings)
        self._session.warm_up()

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Batch:
        errors = list(batch["error"])
        good = [number for number, error in enumerate(errors) if not error]
        vectors = np.zeros((len(errors), self._dimension), np.float32)
        most = self._session.batch_sizes[-1]
        for start in range(0, len(good), most):
            some = good[start : start + most]
            try:
                outputs = self._session.run(np.ascontiguousarray(batch["pixels"][some])).split()
            except InferenceFailed as error:
                for number in some:
                    errors[number] = str(error)
                continue
            for number, output in zip(some, outputs, strict=True):
                if output.finite():
                    vectors[number] = output.embedding
                else:  # as the server refuses it
                    errors[number] = "the model gave values that aren't finite for this image"
        return {"work": batch["work"], "vector": vectors, "error": column(errors)}


class Writing:
    """`vector` → `id`, `code` and `message`: empty where the item is on the server's disk."""

    def __init__(self, address: str, timeout_s: float, collection: Collection) -> None:
        client = Client(address, timeout=timeout_s)
        self._writer = Writer(client, collection, Stored(client, collection))

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Batch:
        works: list[Work] = list(batch["work"])
        outcomes = {
            work.id: ("INVALID_ARGUMENT", error)
            for work, error in zip(works, batch["error"], strict=True)
            if error
        }
        items = [
            Item(work.id, vector=vector, attributes=work.attributes)
            for work, vector, error in zip(works, batch["vector"], batch["error"], strict=True)
            if not error
        ]
        fatal = ""
        try:
            for name, result in self._writer.upsert(items).items():
                outcomes[name] = (result.error.code, result.error.message) if result.error else ("", "")
        except FoveaError as error:
            fatal = error.message
        pairs = [outcomes.get(work.id, ("UNKNOWN", fatal)) for work in works]
        return {
            "id": column([work.id for work in works]),
            "code": column([code for code, _ in pairs]),
            "message": column([message for _, message in pairs]),
            "fatal": column([fatal] * len(works)),
        }
