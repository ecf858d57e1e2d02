"""Files of weights as they are found in the wild."""

import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.errors import RunError, WeightsError
from training.models import architecture
from training.weights import _without_prefixes, load_weights, read_weights

Weights = dict[str, Tensor]


def as_akamaster(weights: Weights) -> Any:
    """As pytorch_resnet_cifar10's checkpoints: DataParallel, a head called linear, beside a score."""
    renamed = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in weights.items()}
    return {"state_dict": renamed, "best_prec1": 91.7}


@pytest.mark.parametrize(
    "wrap",
    [
        as_akamaster,
        lambda weights: weights,
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
    ],
    ids=["akamaster", "plain", "model", "module."],
)
def test_is_read_in_our_names(tmp_path: Path, wrap: Callable[[Weights], Any]) -> None:
    source = architecture("resnet20-cifar").build(10).eval()
    file = tmp_path / "file.th"
    torch.save(wrap(dict(source.state_dict())), file)
    model = architecture("resnet20-cifar").build(10).eval()
    assert load_weights(model, read_weights(file), str(file))
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model(x), source(x))


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    source = architecture("resnet20-cifar").build(10)
    file = tmp_path / "net.safetensors"
    save_file(source.state_dict(), file)
    model = architecture("resnet20-cifar").build(10)
    assert load_weights(model, read_weights(file), str(file))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())
    file.write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match=r"net\.safetensors: not a \.safetensors file"):
        read_weights(file)
    with pytest.raises(WeightsError, match=r"gone\.safetensors: can't be read: No such file"):
        read_weights(tmp_path / "gone.safetensors")


def test_a_compiled_networks_names_are_understood() -> None:
    source = architecture("resnet20-cifar").build(10)
    given = {f"module._orig_mod.{name}": value for name, value in source.state_dict().items()}
    assert set(map(_without_prefixes, given)) == set(source.state_dict())


def test_auxiliary_heads_may_be_missing_as_a_whole() -> None:
    given = dict(architecture("googlenet").build(4).state_dict())
    without = {name: value for name, value in given.items() if not name.startswith("aux")}
    assert load_weights(architecture("googlenet").build(4), without, "file.pth")
    del given["aux1.fc1.bias"]
    with pytest.raises(WeightsError, match=r"missing \(1\): aux1\.fc1\.bias"):
        load_weights(architecture("googlenet").build(4), given, "file.pth")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run by unpickling",)


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "evil.pth"
    torch.save({"conv1.weight": Evil()}, file)
    with pytest.raises(WeightsError, match=r"evil\.pth.*weights_only.*it holds .*print;") as caught:
        read_weights(file)
    assert "run by unpickling" not in capsys.readouterr().out
    assert "False" not in str(caught.value)  # torch's advice to load it all the same


def test_whole_networks_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(
        WeightsError, match=r"it holds torch\.nn\.modules\.linear\.Linear; expected what torch\.save\(model"
    ):
        read_weights(file)
    with zipfile.ZipFile(file, "a") as archive:  # by which torch knows what torch.jit.save wrote
        archive.writestr("whole/constants.pkl", b"")
    with pytest.raises(WeightsError, match=r"it is a TorchScript archive; expected"):
        read_weights(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a file of weights"),
        (b"not weights at all", "not a file of weights"),
        (pickle.dumps(3), "not a file of weights"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "holds list"), ({}, "holds dict"), ({"epoch": 3, "loss": 0.5}, "'epoch' is int")],
)
def test_something_else_than_a_state_dict_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "other.pth"
    torch.save(content, file)
    with pytest.raises(WeightsError, match=message):
        read_weights(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth: can't be read: No such file"):
        read_weights(tmp_path / "gone.pth")


def checkpoint(epoch: int) -> Checkpoint:
    return Checkpoint(
        {"w": torch.arange(4.0)}, epoch, {"accuracy": 0.5, "loss": 1.5}, step=7, progress={"lr": 0.1}
    )


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    save_checkpoint(file, checkpoint(1))
    save_checkpoint(file, checkpoint(2))
    loaded = load_checkpoint(file)
    assert torch.equal(loaded.model["w"], torch.arange(4.0))
    assert (loaded.epoch, loaded.val_accuracy, loaded.progress) == (2, 0.5, {"lr": 0.1})
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_checkpoint_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    save_checkpoint(file, checkpoint(1))
    large = replace(checkpoint(2), model={"w": torch.zeros(100_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # as a full disk: the system refuses to write
    try:
        with pytest.raises(RunError, match=r"best\.pt: can't be written after epoch 2: File too large"):
            save_checkpoint(file, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(file).epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "best.pt"
    save_checkpoint(file, checkpoint(1))
    synced: list[tuple[int, int, bool]] = []

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((status.st_ino, status.st_size, status.st_ino == file.stat().st_ino))

    monkeypatch.setattr(os, "fsync", fsync)
    save_checkpoint(file, checkpoint(2))
    assert synced == [(file.stat().st_ino, file.stat().st_size, False)]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("conv1.weight", torch.zeros(16, 3, 3, 3, dtype=torch.int8), "is int8"),
        ("conv1.weight", torch.zeros(16, 3, 3, 3, dtype=torch.complex64), "is complex64"),
        ("bn1.bias", torch.zeros(16, dtype=torch.bool), "is bool"),
        ("fc.weight", torch.ones(10, 64).to_sparse(), "is sparse_coo"),
        ("fc.weight", torch.empty(10, 64, device="meta"), "has a shape but no values"),
        ("bn1.num_batches_tracked", torch.tensor(1 + 2j), "is complex64"),
    ],
    ids=["int8", "complex", "bool", "sparse", "meta", "counter"],
)
def test_only_dense_floating_point_numbers_are_taken(
    tmp_path: Path, name: str, value: Tensor, kind: str
) -> None:
    weights = dict(architecture("resnet20-cifar").build(10).state_dict())
    torch.save(weights | {name: value}, tmp_path / "file.pth")
    model = architecture("resnet20-cifar").build(10)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, read_weights(tmp_path / "file.pth"), "file.pth")
    expected = f"file.pth: {name!r} {kind}"
    assert str(caught.value).startswith(expected)
    assert "expected a dense tensor of floating-point numbers" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_numbers_of_any_width_are_taken(dtype: torch.dtype) -> None:
    weights = architecture("resnet20-cifar").build(10).state_dict()
    given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    model = architecture("resnet20-cifar").build(10)
    assert load_weights(model, given, "file.pth")
    assert torch.equal(model.head.weight, given["fc.weight"].float())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    for other in ({"w": torch.zeros(1)}, vars(checkpoint(1)) | {"model": 3}):
        torch.save(other, file)
        with pytest.raises(WeightsError, match="not a checkpoint of fovea-train"):
            load_checkpoint(file)
