"""How far a long job is: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 30.0


class Bar:
    """Counts images; use it as a context.

    Args:
        total: images of the whole job.
        title: what is being done; `describe` changes it.
        done: images that were done before, by who was stopped.
        shown: whether anything is printed at all.
    """

    def __init__(self, total: int, title: str, done: int = 0, shown: bool = True) -> None:
        self._total, self._title, self._done, self._before = total, title, done, done
        self._shown = shown
        self._started = self._printed = time.monotonic()
        self._progress: Progress | None = None
        if shown and sys.stdout.isatty():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                _Speed(),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(),
                transient=True,
            )
            self._task = self._progress.add_task(title, total=total, completed=done)

    def __enter__(self) -> "Bar":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def describe(self, title: str) -> None:
        """Say what is being done now."""
        self._title = title
        if self._progress:
            self._progress.update(self._task, description=title)

    def advance(self, images: int) -> None:
        """Count images that are done."""
        self._done += images
        if self._progress:
            self._progress.advance(self._task, images)
            return
        now = time.monotonic()
        if self._shown and now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            speed = (self._done - self._before) / (now - self._started)
            left = (self._total - self._done) / speed
            self.line(
                f"{self._title}: {self._done:,} of {self._total:,} images, "
                f"{speed:.0f} images/s, {left:.0f} s left"
            )

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self._shown:
            click.echo(text)


def track(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Pass items on, one an image, under a bar."""
    with Bar(total, title) as bar:
        for item in items:
            yield item
            bar.advance(1)


class _Speed(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} images/s" if task.speed else "… images/s")
