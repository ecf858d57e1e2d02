"""`python -m training` is the `fovea-train` command."""

from training.cli import main

main(prog_name="fovea-train")
