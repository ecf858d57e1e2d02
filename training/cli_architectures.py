"""fovea-train architectures."""

import click

from training.cli_options import told


@click.command("architectures")
@told
def architectures_command() -> None:
    """List what --arch takes: parameters, side of the input in pixels, versions of published weights.

    The parameters are those with 1,000 classes, and with 10 where the input has 32 pixels or fewer.
    """
    import torch

    from training.models import ARCHITECTURES
    from training.models.adapters import LIBRARIES

    rows = [("NAME", "PARAMETERS", "INPUT", "PRETRAINED")]
    for name, design in ARCHITECTURES.items():
        classes = 10 if design.input_size <= 32 else 1000
        with torch.device("meta"):  # shapes alone, no memory
            parameters = sum(parameter.numel() for parameter in design.build(classes).parameters())
        versions = ", ".join(
            published.version + (f" (package {published.package[2]})" if published.package else "")
            for published in design.published
        )
        rows.append((name, f"{parameters:,}", str(design.input_size), versions or "-"))
    for row in rows:
        click.echo("{:<20}{:>12}{:>7}  {}".format(*row))
    for library in LIBRARIES:
        click.echo(f"{library}:NAME, a classifier of {library} by its name there (extra {library!r})")
