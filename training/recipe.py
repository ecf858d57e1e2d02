"""Recipes: options of `fovea-train fit` in a TOML file, with what they cost and gave in its header."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from training.errors import SettingError

_FOLDER = resources.files("training") / "recipes"


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe that comes with Fovea, or of a file.

    Returns:
        Option, as in --some-option without the dashes, with _ between words → value.

    Raises:
        SettingError: there is no such recipe, or it can't be read.
    """
    try:
        text = (
            Path(name).read_text(encoding="utf-8")
            if name.endswith(".toml")
            else (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
        )
        return {option.replace("-", "_"): value for option, value in tomllib.loads(text).items()}
    except FileNotFoundError:
        known = ", ".join(recipe_names())
        raise SettingError(
            f"--recipe is {name!r}; expected one of {known}, or a file that ends in .toml"
        ) from None
    except OSError as error:
        raise SettingError(f"--recipe {name}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingError(f"--recipe {name}: not TOML: {error}") from error


def recipe_names() -> list[str]:
    """Of those that come with Fovea."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml")
    )


def describe_recipes() -> list[tuple[str, list[str]]]:
    """Each one's name and its header, line by line."""
    described = []
    for name in recipe_names():
        lines = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
        header = []
        for line in lines:
            if not line.startswith("#"):
                break
            header.append(line.removeprefix("#").strip())
        described.append((name, header))
    return described
