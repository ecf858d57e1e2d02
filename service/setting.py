"""One setting: its default, its limits, its help, and how it is read from text."""

import math
from dataclasses import MISSING, Field, field
from pathlib import Path
from typing import Any

from service.errors import ConfigError

NETWORK, MODELS, ENGINE, BATCHING = "Network", "Models", "Engine", "Batching and threads"
LIMITS, RETRIEVAL, OPERATION = "Limits", "Retrieval", "Operation"
GROUPS = (NETWORK, MODELS, ENGINE, BATCHING, LIMITS, RETRIEVAL, OPERATION)

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def setting(
    default: Any,
    group: str,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    option: str = "",
    secret: bool = False,
) -> Any:
    """A dataclass field that carries what the command line needs.

    Args:
        default: its type is the setting's; a tuple of strings is an option given several times, a
            tuple of numbers one option with commas.
        group: its section of the help, one of `GROUPS`.
        text: its help.
        low: lowest number allowed, of a tuple's too.
        high: highest number allowed, of a tuple's too.
        choices: the words allowed.
        option: its name on the command line, if another than its own.
        secret: its value isn't printed with the others.
    """
    metadata = {
        "group": group, "help": text, "low": low, "high": high, "choices": choices, "option": option,
    }  # fmt: skip
    return field(default=default, metadata=metadata, repr=not secret)


def default_of(setting: "Field[Any]") -> Any:
    """A setting's default value."""
    assert setting.default is not MISSING  # noqa: S101 - every setting has one
    return setting.default


def is_numbers(setting: "Field[Any]") -> bool:
    """Whether its value is a list of whole numbers."""
    default = default_of(setting)
    return isinstance(default, tuple) and bool(default) and isinstance(default[0], int)


def check(setting: "Field[Any]", value: Any) -> None:
    """Hold a value against the setting's limits.

    Raises:
        ConfigError: names the setting, the value and what was expected.
    """
    low, high, choices = (setting.metadata[key] for key in ("low", "high", "choices"))
    if choices is not None and value not in choices:
        raise ConfigError(f"{setting.name} is {value!r}; expected one of {', '.join(choices)}")
    if is_numbers(setting) and not value:
        raise ConfigError(f"{setting.name} is empty; expected at least one number")
    if is_numbers(setting) and len(set(value)) != len(value):
        raise ConfigError(f"{setting.name} is {','.join(map(str, value))}; expected each number once")
    for number in value if is_numbers(setting) else [value]:
        if low is not None and not low <= number <= (high or math.inf):
            raise ConfigError(f"{setting.name} is {number}; expected {low} to {high or 'any more'}")


def parse(setting: "Field[Any]", text: str) -> Any:
    """A value from its text, as the command line, the environment or a file has it.

    Raises:
        ConfigError: names the setting, the text and what was expected.
    """
    default = default_of(setting)
    if is_numbers(setting):
        try:
            return tuple(int(part) for part in text.split(","))
        except ValueError:
            raise ConfigError(
                f"{setting.name} is {text!r}; expected whole numbers separated by commas"
            ) from None
    if isinstance(default, bool):
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigError(f"{setting.name} is {text!r}; expected true or false")
        return text.lower() in _TRUE
    if isinstance(default, int | float):
        kind = type(default)
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{setting.name} is {text!r}; expected {wanted}") from None
    return Path(text) if isinstance(default, Path) else text
