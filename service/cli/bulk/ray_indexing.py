"""The way from a source into a collection over Ray's workers, for more than one machine can embed."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fovea import Client, Collection, FoveaError, InvalidArgument, UpsertResult

from service.cli.bulk.entry import Entry
from service.cli.bulk.look import Rules
from service.cli.bulk.ray_stages import Embedding, Looking, Reading, Writing
from service.cli.bulk.step import Broken, Step
from service.cli.bulk.stored import Stored
from service.cli.bulk.writer import Work, Writer

# What this process holds of images at a time: their names and attributes. Actors start anew for each time.
_IMAGES_AT_ONCE = 8192
_IMAGES_PER_TASK = 32
_WRITERS = 2
# Asking and writing wait for the server most of the time.
_FEW_CPUS = 0.1


class RayWriter(Writer):
    """Embeds by Ray's actors, which write by themselves; vectors that are there already it writes itself."""

    def __init__(self, client: Client, collection: Collection, stored: Stored, stages: "Stages") -> None:
        super().__init__(client, collection, stored)
        self._stages = stages

    def embed(self, images: Sequence[Work]) -> dict[str, UpsertResult]:
        return self._stages.embed(images) if images else {}


class Stages:
    """The pipelines of one run."""

    def __init__(
        self,
        address: str,
        timeout_s: float,
        collection: Collection,
        package: Path,
        actors: int,
        rules: Rules,
    ) -> None:
        """Prepare; the workers start with the first images.

        Args:
            address: of the server, as the workers reach it.
            timeout_s: of each of their requests.
            collection: as it stands before.
            package: the model's folder, which every worker can read.
            actors: that embed, each on a CPU of its own.
            rules: when an image is written.
        """
        self._server = {"address": address, "timeout_s": timeout_s, "collection": collection}
        self._package, self._actors, self._rules = package, actors, rules
        self._precision = collection.fingerprint.rpartition(":")[2]

    def look(self, entries: Sequence[Entry]) -> list[tuple[str, Work | str | None]]:
        """What has to be written of each, as `Looking` says, by id.

        Raises:
            FoveaError: the server can't be asked.
        """
        looked = _dataset("entry", entries).map_batches(
            Looking,
            fn_constructor_kwargs={**self._server, "rules": self._rules},
            batch_size=_IMAGES_PER_TASK,
            compute=_actors(1, self._actors),
            num_cpus=_FEW_CPUS,
        )
        found: list[tuple[str, Work | str | None]] = []
        for row in looked.iter_rows():
            if isinstance(row["work"], FoveaError):
                raise row["work"]
            found.append((row["id"], row["work"]))
        return found

    def embed(self, images: Sequence[Work]) -> dict[str, UpsertResult]:
        """Read, embed and write; what became of each, by id.

        Raises:
            FoveaError: the server can't be written to.
        """
        written = (
            _dataset("work", images)
            .map_batches(
                Reading,
                fn_constructor_kwargs={"package": self._package},
                batch_size=_IMAGES_PER_TASK,
                compute=_actors(1, self._actors),
                num_cpus=_FEW_CPUS,
            )
            .map_batches(
                Embedding,
                fn_constructor_kwargs={"package": self._package, "precision": self._precision, "threads": 1},
                batch_size=_IMAGES_PER_TASK,
                compute=_actors(self._actors, self._actors),
                num_cpus=1,
            )
            .map_batches(
                Writing,
                fn_constructor_kwargs=self._server,
                batch_size=_IMAGES_PER_TASK,
                compute=_actors(1, _WRITERS),
                num_cpus=_FEW_CPUS,
            )
        )
        results: dict[str, UpsertResult] = {}
        for row in written.iter_rows():
            if row["fatal"]:
                raise FoveaError(row["fatal"])
            error = FoveaError(row["message"], code=row["code"]) if row["code"] else None
            results[row["id"]] = UpsertResult(row["id"], error)
        return results


class RayIndexing:
    """As `Indexing`, over Ray."""

    def __init__(self, client: Client, collection: Collection, stages: Stages) -> None:
        self._stages, self._stored = stages, Stored(client, collection)
        self._writer = RayWriter(client, collection, self._stored, stages)

    def run(self, entries: Iterable[Entry]) -> Iterator[Step]:
        """Index the entries; gives what became of them as it becomes known.

        Raises:
            FoveaError: of the server; what was given as indexed is.
        """
        for some in _without_repeats(entries):
            looked = self._stages.look(some)
            broken = [Broken(name, InvalidArgument(work)) for name, work in looked if isinstance(work, str)]
            works = [work for _, work in looked if isinstance(work, Work)]
            unchanged = len(looked) - len(broken) - len(works)
            yield Step(unchanged=unchanged, broken=tuple(broken))
            written = self._writer.write(works)
            failed = tuple(Broken(name, error) for name, error in written.errors.items())
            yield Step(written.embedded, written.copied, 0, failed)


def _actors(least: int, most: int) -> Any:
    import ray.data

    return ray.data.ActorPoolStrategy(min_size=least, max_size=most)


def _dataset(name: str, values: Sequence[object]) -> Any:
    import ray.data

    tasks = max(1, len(values) // _IMAGES_PER_TASK)
    return ray.data.from_items([{name: value} for value in values], override_num_blocks=tasks)


def _without_repeats(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Some at a time; of entries with one id each stands in a batch of its own, so the last is kept."""
    batch: dict[str, Entry] = {}
    for entry in entries:
        if len(batch) >= _IMAGES_AT_ONCE or entry.id in batch:
            yield list(batch.values())
            batch = {}
        batch[entry.id] = entry
    if batch:
        yield list(batch.values())
