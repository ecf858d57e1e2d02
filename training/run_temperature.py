"""The temperature of a run: fitted on its val images, kept as temperature.json in its folder."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import RunError
from training.temperature import Temperature

FILE = "temperature.json"
# As people read the file: the number first.
_VALUE = "temperature"


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict's names and values, hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_temperature(run: Path, temperature: Temperature, weights: Mapping[str, Tensor]) -> None:
    """Write `run`/temperature.json, which says which weights it is of."""
    described = asdict(temperature)
    document = {_VALUE: described.pop("value"), **described, "weights_sha256": weights_digest(weights)}
    (run / FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_document(run: Path) -> dict[str, Any] | None:
    """What `run`/temperature.json holds, whatever weights it is of; None where there is none.

    Raises:
        RunError: the file can't be read.
    """
    path = run / FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: can't be read: {error}; remove it to fit it anew") from error
    return document


def read_temperature(run: Path, weights: Mapping[str, Tensor]) -> Temperature | None:
    """What `run`/temperature.json says; None where there is none, or it is of other weights.

    Raises:
        RunError: the file can't be read, or isn't that.
    """
    path = run / FILE
    document = read_document(run)
    if document is None:
        return None
    try:
        if document["weights_sha256"] != weights_digest(weights):
            return None
        names = [field.name for field in fields(Temperature) if field.name != "value"]
        found = Temperature(value=float(document[_VALUE]), **{name: document[name] for name in names})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not the temperature of a run: {error}; remove it to fit it anew") from error
    if not (math.isfinite(found.value) and found.value > 0):
        raise RunError(f"{path}: temperature is {found.value}; expected a finite number above 0")
    return found
