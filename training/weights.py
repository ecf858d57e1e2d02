"""Files of weights, ours or published ones, and how they fit a network."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import WeightsError
from training.models import Classifier

# Where training scripts put the state dict inside what they save.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_LISTED = 8


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file of torch.save's, or a .safetensors.

    Taken off: a wrapper such as {'state_dict': …} or {'model': …}, and the prefixes 'module.' of
    DataParallel and '_orig_mod.' of torch.compile.

    Raises:
        WeightsError: the file can't be read, or holds something else than tensors by name.
    """
    content = _load_safetensors(path) if path.suffix == ".safetensors" else load(path)
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path}: holds {type(content).__name__}; expected a state dict, names to tensors")
    strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(
            f"{path}: {strangers[0]!r} is {type(content[strangers[0]]).__name__}; expected a state dict, "
            f"names to tensors, perhaps inside one of {', '.join(map(repr, _WRAPPERS))}"
        )
    return {_without_prefixes(str(name)): value for name, value in content.items()}


def load(path: Path) -> Any:
    """torch.load onto the CPU, of tensors and plain values only: code in the file isn't run.

    Raises:
        WeightsError: the file can't be read.
    """
    try:
        with warnings.catch_warnings():
            # A file pickled by a newer protocol either loads or is refused below; both are said there.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            warnings.filterwarnings("ignore", ".*looks like a TorchScript archive", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path}: not a file of weights, or one that holds more than tensors and plain values "
            f"(torch.load with weights_only=True refused it): {_reason(error)}; expected what "
            "torch.save(model.state_dict(), …) writes"
        ) from error


def _reason(error: Exception) -> str:
    """What was wrong with the file, without torch's advice to load it with fewer precautions."""
    text = str(error)
    for pattern, reason in (
        (r"GLOBAL (\S+)", "it holds {}"),
        (r"TorchScript", "it is a TorchScript archive"),
        (r"WeightsUnpickler error:\s*(.+)", "{}"),
    ):
        if found := re.search(pattern, text):
            return reason.format(*found.groups())
    return (text.splitlines() or [type(error).__name__])[0]


def load_weights(
    model: Classifier, weights: dict[str, Tensor], source: str, adapt_head: bool = False
) -> bool:
    """Put weights into a network.

    Published names of the same head are understood: `linear` of the CIFAR ResNets' well-known files, a
    library's own of an adapter. Auxiliary heads that the file has none of keep their random values: they
    only help training.

    Args:
        model: changed in place.
        weights: as `read_weights` gives them.
        source: what to call them in an error.
        adapt_head: keep the network's own random heads where their number of classes differs.

    Returns:
        Whether the head was taken too.

    Raises:
        WeightsError: lists missing, unexpected and wrongly shaped names, or what isn't made of plain
            floating-point numbers.
    """
    expected = model.state_dict()
    given = _fitted_names(model, weights, expected)
    _check_kinds(given, expected, source)
    rows = _rows(given, model.head_name)
    head_fits = rows == model.classes
    if adapt_head:
        for head in (model.head_name, *model.auxiliary_head_names):
            if _rows(given, head) != _rows(expected, head):
                given |= {name: value for name, value in expected.items() if name.startswith(f"{head}.")}
    for head in model.auxiliary_head_names:
        auxiliary = head.partition(".")[0] + "."
        if not any(name.startswith(auxiliary) for name in weights):
            given |= {name: value for name, value in expected.items() if name.startswith(auxiliary)}
    # Files from before PyTorch 0.4.1 don't count batches, and nothing here needs the count.
    counters = {name for name in expected if name.endswith(".num_batches_tracked")}
    missing = sorted(expected.keys() - given.keys() - counters)
    unexpected = sorted(given.keys() - expected.keys())
    shapes = [
        f"{name} is {_shape(given[name])}, expected {_shape(expected[name])}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    if missing or unexpected or shapes:
        lines = [f"{source}: these weights belong to another network than {type(model).__name__}"]
        if rows is not None and not head_fits and not adapt_head:
            lines.append(f"  the head has {rows} classes; expected {model.classes}, one a label")
        lines += [
            f"  {kind} ({len(names)}): {_listed(names)}"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
            if names
        ]
        raise WeightsError("\n".join(lines))
    complete = model.state_dict()  # not a plain dict: some networks look at the versions that it carries
    complete.update(given)
    model.load_state_dict(complete)
    return head_fits


def _fitted_names(
    model: Classifier, weights: dict[str, Tensor], expected: dict[str, Tensor]
) -> dict[str, Tensor]:
    given = model.from_published(weights)
    if "linear.weight" in given and "linear.weight" not in expected:
        return {
            f"{model.head_name}.{name.removeprefix('linear.')}" if name.startswith("linear.") else name: value
            for name, value in given.items()
        }
    return dict(given)


def _rows(weights: dict[str, Tensor], head: str) -> int | None:
    """How many classes a head has; None where it isn't there."""
    weight = weights.get(f"{head}.weight")
    return weight.shape[0] if weight is not None and weight.ndim else None


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    # Installed by the extra; slow to import, and for these files only.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a .safetensors file: {error}") from error


def _check_kinds(weights: dict[str, Tensor], expected: dict[str, Tensor], source: str) -> None:
    """PyTorch would cast or drop parts of some of these without a word, and stumble over the others.

    Integers are taken where the network has integers, such as the counters of batch normalisation.
    """
    integers = {name for name, value in expected.items() if _is_integer(value)}
    for name, value in weights.items():
        if value.is_meta:
            kind = "has a shape but no values (a tensor on the meta device)"
        elif value.layout != torch.strided or value.is_nested:
            kind = f"is {'nested' if value.is_nested else str(value.layout).removeprefix('torch.')}"
        elif not value.is_floating_point() and not (
            _is_integer(value) and (name in integers or name.endswith("num_batches_tracked"))
        ):
            kind = f"is {str(value.dtype).removeprefix('torch.')}"
        else:
            continue
        raise WeightsError(f"{source}: {name!r} {kind}; expected a dense tensor of floating-point numbers")


def _is_integer(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def _without_prefixes(name: str) -> str:
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join(map(str, tensor.shape)) + "]"


def _listed(names: list[str]) -> str:
    more = f" … and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
