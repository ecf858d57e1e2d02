"""The bar of a long command, on standard error."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """How many a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} {self._unit}/s" if speed else "", style="progress.data.speed")


def progress(unit: str = "images") -> Progress:
    """A bar with the number done, their rate and the time left."""
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    return Progress("{task.description}", *columns, console=Console(stderr=True))
