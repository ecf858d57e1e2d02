"""Who embeds: the server, or Ray's workers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import click
from fovea import Client, Collection

from service.cli.bulk.entry import Entry
from service.cli.bulk.indexing import Indexing
from service.cli.bulk.look import Rules
from service.cli.bulk.step import Step
from service.errors import StartError
from service.manifest import Manifest, read_manifest

SERVER, RAY = "server", "ray"


class Run(Protocol):
    """The way from a source into a collection."""

    def run(self, entries: Iterable[Entry]) -> Iterator[Step]:
        """Index the entries; gives what became of them as it becomes known."""


@dataclass(frozen=True)
class Engine:
    """As the command's options say.

    Attributes:
        manifest: of the package that Ray's workers load; None: the server embeds.
        ray_address: of a cluster; None: Ray is started here.
        actors: that embed; 0: one for each CPU but one.
    """

    manifest: Manifest | None = None
    ray_address: str | None = None
    actors: int = 0

    @contextmanager
    def indexing(
        self, client: Client, collection: Collection, timeout_s: float, rules: Rules
    ) -> Iterator[Run]:
        """Start what embeds.

        Raises:
            click.ClickException: Ray can't be used, or the package makes other vectors.
        """
        if self.manifest is None:
            yield Indexing(client, collection, rules)
            return
        from service.cli.bulk import ray_engine  # pictures and models, which no other command needs

        with ray_engine.indexing(
            client, collection, self.manifest, self.ray_address, self.actors, timeout_s, rules
        ) as run:
            yield run


def engine_options(function: Callable[..., None]) -> Callable[..., None]:
    """--engine and what belongs to it, as one argument `engine`."""

    @wraps(function)
    def gathered(
        engine: str, package: Path | None, ray_address: str | None, actors: int, **others: Any
    ) -> None:
        if engine == SERVER and (package or ray_address or actors):
            raise click.UsageError("--package, --ray-address and --actors belong to --engine ray")
        if engine == RAY and package is None:
            raise click.UsageError("--engine ray needs --package, the folder of the model that embeds")
        manifest = None if package is None else _manifest(package)
        function(engine=Engine(manifest, ray_address, actors), **others)

    options = (
        click.option(
            "--engine",
            type=click.Choice((SERVER, RAY)),
            default=SERVER,
            show_default=True,
            help="Who embeds; ray: workers on one or several machines, each with the model's package.",
        ),
        click.option(
            "--package",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="FOLDER",
            help="For --engine ray: the model's, <name>/<version>; every worker reads it, as the images.",
        ),
        click.option("--ray-address", metavar="ADDRESS", help="Of a Ray cluster. Default: one started here."),
        click.option("--actors", type=click.IntRange(0), default=0, metavar="N", help="That embed, for ray."),
    )
    for option in reversed(options):
        gathered = option(gathered)
    return gathered


def _manifest(package: Path) -> Manifest:
    try:
        return read_manifest(package.resolve())
    except StartError as error:
        raise click.ClickException(str(error)) from error
