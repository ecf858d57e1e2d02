"""fovea-train: train a classifier on images, and export it as a model package."""

import click

from training.cli_architectures import architectures_command
from training.cli_evaluate import evaluate_command
from training.cli_export import export_command
from training.cli_fit import fit_command
from training.cli_probe import probe_command
from training.cli_recipe import recipes_command
from training.cli_report import report_command
from training.cli_try import augmentations_command, find_rate_command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="fovea-serving")
def main() -> None:
    """Train an image classifier, then export it as a model package that `fovea serve` serves.

    \b
    fovea-train fit --data photos/ --arch resnet18
    fovea-train export
    fovea serve --model-repository models/
    """


main.add_command(fit_command)
main.add_command(probe_command)
main.add_command(export_command)
main.add_command(evaluate_command)
main.add_command(report_command)
main.add_command(architectures_command)
main.add_command(recipes_command)
main.add_command(find_rate_command)
main.add_command(augmentations_command)
