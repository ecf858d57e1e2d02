"""Checks of arguments, with messages that name the value."""


def at_least_one(name: str, value: int) -> int:
    """The value.

    Raises:
        ValueError: it isn't at least 1.
    """
    if value < 1:
        raise ValueError(f"{name} is {value}; expected at least 1")
    return value
