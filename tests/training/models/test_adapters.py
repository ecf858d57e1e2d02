"""Networks of timm and torchvision as classifiers."""

import copy
import sys
import warnings
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from service.preprocess import Preprocessing
from tests.training.models.full_torch import needs_full_torch
from tests.training.pictures import write_class_folders
from training.cli import main
from training.errors import MissingExtra, SettingError, UnknownArchitecture, WeightsError
from training.export import export_package
from training.models import Classifier, architecture
from training.models.classifier import GlobalAverage
from training.pretrained import load_pretrained
from training.weights import load_weights

# A convolutional network of each kind of ending, and transformers.
NETWORKS = (
    "torchvision:alexnet",
    "torchvision:vgg11",
    "torchvision:resnext50_32x4d",
    "torchvision:densenet121",
    "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:mnasnet0_5",
    "torchvision:efficientnet_b0",
    "torchvision:regnet_y_400mf",
    "torchvision:convnext_tiny",
    "torchvision:swin_t",
    "torchvision:maxvit_t",
    "torchvision:vit_b_32",
    "timm:xception",
    "timm:resnet18",
    "timm:mobilenetv3_small_050",
    "timm:convnext_atto",
    "timm:vit_tiny_patch16_224",
    "timm:deit_tiny_patch16_224",
)


def library_network(name: str, classes: int) -> torch.nn.Module:
    import timm
    import torchvision

    library, _, inner = name.partition(":")
    if library == "timm":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mapping deprecated model name", UserWarning)
            network: torch.nn.Module = timm.create_model(inner, num_classes=classes)
    else:
        network = torchvision.models.get_model(inner, weights=None, num_classes=classes)
    return network


@needs_full_torch
@pytest.mark.parametrize("name", NETWORKS)
def test_computes_what_the_library_does(name: str) -> None:
    torch.manual_seed(0)
    design = architecture(name)
    theirs = library_network(name, 5).eval()
    ours = design.build(5)
    assert load_weights(ours, theirs.state_dict(), "the library's")
    ours.eval()
    x = torch.randn(2, 3, design.input_size, design.input_size)
    with torch.inference_mode():
        expected, features, maps = theirs(x), ours.features(x), ours.feature_maps(x)
        logits, from_features = ours(x), ours.classify(features)
        copied = copy.deepcopy(ours)(x)
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(logits, copied)
    assert torch.equal(logits, from_features)
    assert features.shape == (2, ours.embedding_dimension)
    assert maps.ndim == 4
    assert maps.shape[:2] == (2, ours.feature_channels)
    assert min(maps.shape[2:]) > 1


@needs_full_torch
@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_one_stage(name: str) -> None:
    model = architecture(name).build(5)
    stages = model.stages()
    flat = [id(parameter) for _, parameters in stages for parameter in parameters]
    assert sorted(flat) == sorted(id(parameter) for parameter in model.parameters())
    assert len(stages) >= 4
    assert all(parameters for _, parameters in stages)
    assert {id(p) for p in model.head.parameters()} <= {id(p) for p in stages[-1][1]}


@needs_full_torch
@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "torchvision:shufflenet_v2_x0_5"])
def test_a_plain_mean_can_be_exchanged(name: str) -> None:
    model = architecture(name).build(5).eval()
    assert isinstance(model.pool, GlobalAverage)
    model.pool = Maximum()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.features(x), model.feature_maps(x).amax(dim=(2, 3)))


class Maximum(torch.nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.amax(dim=(2, 3))


@needs_full_torch
@pytest.mark.parametrize("name", ["torchvision:swin_t", "timm:swin_tiny_patch4_window7_224", "timm:resnet18"])
def test_feature_maps_can_be_pooled_by_themselves(name: str) -> None:
    model = architecture(name).build(5).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(model.pool(model.feature_maps(x)), model.features(x), atol=1e-5)


@needs_full_torch
@pytest.mark.parametrize("name", ["torchvision:vit_b_32", "timm:vit_tiny_patch16_224"])
def test_what_is_pooled_by_a_token_says_so(name: str) -> None:
    model = architecture(name).build(5).eval()
    with torch.inference_mode(), pytest.raises(SettingError, match=r"token.* which .*feature maps lack"):
        model.pool(model.feature_maps(torch.zeros(1, 3, 224, 224)))


@needs_full_torch
def test_feature_maps_of_tokens_are_in_their_places() -> None:
    model = architecture("timm:vit_tiny_patch16_224").build(5).eval()
    x = torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        before = model.feature_maps(x)
        x[:, :, 32:48, 160:176] = 3  # the patch of row 2, column 10
        changed = (model.feature_maps(x) - before).abs().sum(dim=1)[0]
    assert divmod(int(changed.argmax()), 14) == (2, 10)


@needs_full_torch
def test_xception_says_what_it_wants() -> None:
    design = architecture("timm:xception")
    assert (design.input_size, design.interpolation, design.mean) == (299, "bicubic", (0.5, 0.5, 0.5))
    # timm cuts the centre of ⌊299 / 0.8975⌋ pixels.
    assert design.resize_size == 333
    published = architecture("torchvision:vgg16").published
    assert [one.version for one in published] == ["v1"]
    assert published[0].file == "vgg16-397923af.pth"


@needs_full_torch
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:xceptionn", r"timm has no model 'xceptionn'; similar ones: .*xception"),
        ("torchvision:vgg17", r"torchvision has no classifier 'vgg17'; it has .*vgg16"),
        ("torchvision:googlenet", r"torchvision:googlenet has auxiliary heads.*only googlenet trains"),
    ],
)
def test_an_unknown_name_is_told(name: str, message: str) -> None:
    with pytest.raises(UnknownArchitecture, match=message):
        architecture(name)


@needs_full_torch
def test_a_network_without_a_linear_head_is_refused() -> None:
    with pytest.raises(UnknownArchitecture, match=r"torchvision:squeezenet1_1 ends in .*expected a linear"):
        architecture("torchvision:squeezenet1_1").build(5)


@needs_full_torch
@pytest.mark.parametrize(
    ("name", "side"), [("torchvision:shufflenet_v2_x0_5", 32), ("timm:mobilenetv3_small_050", 32)]
)
def test_learns_a_step_and_exports_with_parity(tmp_path: Path, name: str, side: int) -> None:
    data = write_class_folders(tmp_path / "lights", 8)
    run, repository = tmp_path / "run", tmp_path / "models"
    options = ["--data", str(data), "--arch", name, "--epochs", "1", "--batch-size", "8", "--workers", "0"]
    sizes = ["--input-size", str(side), "--resize-size", str(side)]
    fitted = CliRunner().invoke(main, ["fit", *options, *sizes, "--output", str(run)])
    assert fitted.exit_code == 0, fitted.output
    exported = CliRunner().invoke(main, ["export", "--run", str(run), "--model-repository", str(repository)])
    assert exported.exit_code == 0, exported.output
    assert "same top-1 100.00%" in exported.output


@needs_full_torch
@pytest.mark.parametrize("name", ["torchvision:vgg11", "timm:xception"])
def test_exports_with_parity(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    design = architecture(name)
    model: Classifier = design.build(4)
    exported = export_package(
        model,
        repository=tmp_path,
        name="adapted",
        labels=["a", "b", "c", "d"],
        architecture=name,
        preprocessing=Preprocessing(96, 96, 96, design.interpolation),
        mean=design.mean,
        std=design.std,
    )
    assert exported.agreement.top1_agreement == 1


@needs_full_torch
@pytest.mark.parametrize("name", ["torchvision:alexnet", "timm:xception"])
def test_without_network_published_weights_say_where_to_put_their_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    file = architecture(name).published[0].file
    with pytest.raises(WeightsError, match=rf"put it at {tmp_path}/hub/checkpoints/{file}"):
        load_pretrained(architecture(name).build(3), name)


@needs_full_torch
def test_without_network_weights_on_the_hub_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "timm:mobilenetv3_small_050"
    with pytest.raises(WeightsError, match=r"timm/mobilenetv3_small_050.*\n.*HF_HOME.*--init-weights"):
        load_pretrained(architecture(name).build(3), name)


@pytest.mark.parametrize("name", ["timm:xception", "torchvision:vgg16"])
def test_a_missing_library_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = name.partition(":")[0]
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"need the extra '{library}'.*fovea-serving\[{library}\]"):
        architecture(name)
