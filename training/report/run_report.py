"""A run → its report and its model card."""

from pathlib import Path

from training.errors import RunError
from training.evaluate.calibrate import calibrate
from training.evaluate.console import show
from training.evaluate.data import run_pictures
from training.evaluate.evaluation import evaluate
from training.evaluate.run import RunTarget
from training.progress import Bar
from training.report.card import CARD_FILE, REPORT_FOLDER, model_card
from training.report.write import write_report


def report_run(
    run: Path, checkpoint: str = "best", output: Path | None = None, device: str = "auto"
) -> tuple[Path, Path | None]:
    """Score a run on its test images, tell the numbers, and leave its page.

    Args:
        run: the folder of `fovea-train fit`.
        checkpoint: 'best' or 'last'.
        output: where the page goes; None is report/ in the run's folder.
        device: 'auto', 'cpu' or 'cuda'.

    Returns:
        The page, and the model card, which is there for the best checkpoint only: it tells what is exported.

    Raises:
        RunError: the run's images can't be found again, or something can't be written.
    """
    if checkpoint == "best":
        calibrate(run, checkpoint, device)
    target = RunTarget(run, checkpoint, device)
    pictures = run_pictures(run)
    with Bar(len(pictures.split), "evaluating") as bar:
        found = evaluate(target, pictures, bar.advance)
    show(found)
    page = write_report(output or run / REPORT_FOLDER, found, target)
    if checkpoint != "best":
        return page, None
    text = model_card(run, target.loaded.config, report=found.document())
    card = run / CARD_FILE
    try:
        card.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{card} can't be written: {error.strerror}") from error
    return page, card
