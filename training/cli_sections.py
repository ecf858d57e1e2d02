"""A command whose --help has its options in sections: one with sixty in a row can't be read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class SectionOption(click.Option):
    """An option with a place in the help.

    Args:
        *args, **kwargs: as click's.
        section: the title above it.
    """

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedCommand(click.Command):
    """Shows `SectionOption`s under their titles, in the order in which these first come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Other"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


@dataclass(frozen=True)
class Options:
    """Options of a command, as one decorator; those of several can be put together and chosen from.

    Attributes:
        declared: each one's first name, with its dashes, and the decorator that adds it, in the help's order.
    """

    declared: tuple[tuple[str, Decorator], ...]

    def __call__(self, command: Callable[..., Any]) -> Callable[..., Any]:
        """Add them to a command."""
        for _, decorator in reversed(self.declared):
            command = decorator(command)
        return command

    def only(self, *names: str) -> "Options":
        """Those of these names."""
        self._check(names)
        return Options(tuple(one for one in self.declared if one[0] in names))

    def without(self, *names: str) -> "Options":
        """The others."""
        self._check(names)
        return Options(tuple(one for one in self.declared if one[0] not in names))

    def _check(self, names: tuple[str, ...]) -> None:
        known = [name for name, _ in self.declared]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"no option is called {', '.join(unknown)}; expected some of {', '.join(known)}")


def section(title: str) -> Callable[..., Options]:
    """`click.option` for options under `title`."""

    def option(*names: str, **attributes: Any) -> Options:
        made = click.option(*names, cls=SectionOption, section=title, **attributes)
        return Options(((names[0].partition("/")[0], made),))

    return option


def together(*several: Options) -> Options:
    """Several options as one decorator, shown in this order."""
    return Options(tuple(one for options in several for one in options.declared))
