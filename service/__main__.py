"""`python -m service` is the `fovea` command."""

from service.cli import main

main(prog_name="fovea")
