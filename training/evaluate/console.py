"""An evaluation on a terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.evaluate.evaluation import Evaluation

# Of more classes the worst are shown; the files have all.
MAX_CLASSES = 20
MAX_CONFUSIONS = 10
MAX_FAILURES = 10

# As they are read, and which are shares.
TITLES = {
    "top1_accuracy": "accuracy@1",
    "top5_accuracy": "accuracy@5",
    "mean_average_precision": "mean average precision",
    "macro_precision": "precision, mean over classes",
    "macro_recall": "recall, mean over classes",
    "macro_f1": "F1, mean over classes",
    "micro_f1": "F1, over all decisions",
    "threshold": "threshold",
    "nll": "negative log-likelihood, nats",
    "nll_before_temperature": "… without the temperature",
    "ece": "expected calibration error",
    "ece_before_temperature": "… without the temperature",
    "recall_at_1": "retrieval Recall@1",
    "recall_at_5": "retrieval Recall@5",
    "recall_at_10": "retrieval Recall@10",
    "map_at_r": "retrieval mAP@R",
}
_NATS = ("nll", "nll_before_temperature", "threshold")


def formatted(name: str, value: float) -> str:
    """A number as people read it: shares in percent."""
    return f"{value:.4f}" if name in _NATS else f"{value:.2%}"


def precision(share: float, predicted: int) -> str:
    """Of a class; a dash where no image was given it, so that there is none."""
    return f"{share:.2%}" if predicted else "–"


def shown_numbers(found: Evaluation) -> list[tuple[str, str]]:
    """Title and text of every number, in a fixed order; "without" only where there is a temperature."""
    return [
        (title, formatted(name, found.numbers[name]))
        for name, title in TITLES.items()
        if name in found.numbers and not (found.temperature == 1 and name.endswith("_before_temperature"))
    ]


def show(found: Evaluation) -> None:
    """Print an evaluation."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{found.target['kind']} {found.target['name']}")
    console.print(f"on {found.pictures.source}: {answered(found)}")
    if found.ten_crop is not None:
        console.print(str(found.ten_crop))
    console.print(_table(("", ">"), shown_numbers(found), header=False))
    if found.temperature != 1:
        console.print(f"temperature {found.temperature:.4g}")
    if found.classes:
        _show_classes(console, found)
    if found.confusions:
        console.print("\nmost confused")
        rows = [(one.label, one.predicted, f"{one.images:,}") for one in found.confusions[:MAX_CONFUSIONS]]
        console.print(_table(("class", "taken for", ">images"), rows))
    failures = found.predictions.failures
    if failures:
        console.print("\nwithout an answer; they count nowhere")
        for failure in failures[:MAX_FAILURES]:
            console.print(f"  {found.pictures.name(failure.index)}: {failure.reason}")
        if len(failures) > MAX_FAILURES:
            console.print(f"  … and {len(failures) - MAX_FAILURES:,} more")


def answered(found: Evaluation) -> str:
    """How many images were scored, and of how many where some weren't."""
    scored, failed = len(found.targets), len(found.predictions.failures)
    if failed:
        return f"{scored:,} of {scored + failed:,} images, {failed:,} without an answer"
    return f"{scored:,} image{'s' * (scored != 1)}"


def _show_classes(console: Console, found: Evaluation) -> None:
    classes = [one for one in found.classes if one.support]
    if len(classes) > MAX_CLASSES:
        console.print(f"\nthe {MAX_CLASSES} classes with the lowest F1, of {len(classes):,}")
        classes = sorted(classes, key=lambda one: one.f1)[:MAX_CLASSES]
    else:
        console.print("\nclasses")
    rows = [
        (
            one.label,
            precision(one.precision, one.predicted),
            f"{one.recall:.2%}",
            f"{one.f1:.2%}",
            f"{one.support:,}",
        )
        for one in classes
    ]
    console.print(_table(("class", ">precision", ">recall", ">F1", ">images"), rows))


def _table(columns: Iterable[str], rows: Iterable[tuple[str, ...]], header: bool = True) -> Table:
    """Columns whose title begins with '>' stand to the right."""
    table = Table(box=None, show_header=header, header_style="bold", pad_edge=False)
    for title in columns:
        # Names of classes aren't markup.
        table.add_column(
            Text(title.removeprefix(">")),
            justify="right" if title.startswith(">") else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table
