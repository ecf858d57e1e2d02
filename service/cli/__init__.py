"""The `fovea` command: the server, and what a caller does from a terminal."""

import os

# gRPC's own lines would stand unstructured between ours; what they say reaches us as errors. It reads
# this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from service.cli import index, query
from service.cli.bench.command import bench
from service.cli.classify import classify
from service.cli.import_model.command import import_model_command
from service.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fovea-serving", prog_name="fovea")
def main() -> None:
    """Fovea: classify images, embed them, and find similar ones, over gRPC."""


for command in (serve, classify, *query.COMMANDS, *index.COMMANDS, import_model_command, bench):
    main.add_command(command)
