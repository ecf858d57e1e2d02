"""What a run's configuration says, for people."""

from dataclasses import asdict
from typing import Any

from training.config import RunConfig

_TITLES = {
    "data": "Data",
    "model": "Network",
    "embedding": "Embedding",
    "preprocessing": "Preprocessing, as it is served",
    "normalization": "Normalisation",
    "augmentation": "Augmentation",
    "optimization": "Optimisation",
    "transfer": "Transfer",
    "run": "Invocation",
}
# Listed elsewhere, or of use to programs only.
_LEFT_OUT = {"labels", "fingerprint"}


def run_facts(config: RunConfig) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each section's title with its names and values; what is off is left out."""
    sections: dict[str, dict[str, Any]] = asdict(config)
    return [(title, rows) for name, title in _TITLES.items() if (rows := _rows(sections.get(name, {})))]


def _rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), _text(value))
        for name, value in fields.items()
        if name not in _LEFT_OUT and value not in ("", None, False, 0, ())
    ]


def _text(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
