"""What both acts of the demo share: the way it speaks, and how it calls the tools."""

import shlex
import subprocess
import sys
from typing import TypeVar

import fovea
from rich.console import Console
from rich.markup import escape

T = TypeVar("T")
console = Console(highlight=False)


def say(step: str) -> None:
    """A step's headline."""
    console.print(f"\n[bold cyan]{escape(step)}[/]")


def fovea_train(*arguments: str) -> None:
    """Run a command of fovea-train, printed as a user would type it.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    console.print(f"   [dim]$ {escape(shlex.join(['fovea-train', *arguments]))}[/]", soft_wrap=True)
    subprocess.run([sys.executable, "-m", "training", *arguments], check=True)


def good(result: T | fovea.FoveaError) -> T:
    """The result of one image of many; raises its error where it has one."""
    if isinstance(result, fovea.FoveaError):
        raise result
    return result
