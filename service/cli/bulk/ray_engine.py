"""Ray, started here or found, and a run of `RayIndexing` on it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from fovea import Client, Collection

from service.cli.bulk.look import Rules
from service.cli.bulk.ray_indexing import RayIndexing, Stages
from service.manifest import Manifest

_OBJECT_STORE_BYTES = 512 * 1024 * 1024
_STARTS = 2
# By Ray's own name: how long its first process may take to listen, in seconds. It gives 30, too few where the
# machine is busy.
_START_WAIT = ("RAY_gcs_server_port_wait_time_s", "120")


@contextmanager
def indexing(
    client: Client,
    collection: Collection,
    manifest: Manifest,
    ray_address: str | None,
    actors: int,
    timeout_s: float,
    rules: Rules,
) -> Iterator[RayIndexing]:
    """Arguments as in `Engine` and `Indexing`.

    Raises:
        click.ClickException: the package doesn't make the collection's vectors; or Ray isn't installed, can't
            be reached, or lost its workers.
    """
    makes = [manifest.fingerprint(variant.precision) for variant in manifest.variants]
    if collection.fingerprint not in makes:
        raise click.ClickException(
            f"collection {collection.name!r} has vectors of fingerprint "
            f"{collection.fingerprint or '(none)'}; the package {manifest.folder} makes {', '.join(makes)}"
        )
    with _running(ray_address) as cpus:
        stages = Stages(
            client.target, timeout_s, collection, manifest.folder, actors or max(1, cpus - 1), rules
        )
        yield RayIndexing(client, collection, stages)


@contextmanager
def _running(address: str | None) -> Iterator[int]:
    """Ray, and how many CPUs it has."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails comes back as an exception
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise click.ClickException(
            "--engine ray needs Ray, which isn't installed: pip install 'fovea-serving[ray]'"
        ) from error
    here: dict[str, Any] = {
        # A stage that waits for a CPU for ever would stop all.
        "num_cpus": max(2, os.cpu_count() or 1),
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    if not address:
        os.environ.setdefault(*_START_WAIT)
    try:
        _start(ray, address or "local", {} if address else here)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's own
        yield int(resources.get("CPU", 1))
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise click.ClickException(f"Ray failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.shutdown()


def _start(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Start Ray here, or join it; a second time where the first one takes too long."""
    for attempt in range(_STARTS):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ray.exceptions.RayError, ConnectionError):
            raise
        except Exception as error:
            # Of no class of its own: a busy machine hasn't started Ray's processes within its 30 s.
            ray.shutdown()
            if attempt == _STARTS - 1:
                said = str(error).strip().splitlines() or [type(error).__name__]
                raise click.ClickException(f"Ray didn't start: {said[0]}") from error
        else:
            return
