"""The losses by name: that they learn, keep their precision, and refuse what they can't do."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.preprocess import Preprocessing
from tests.training.pictures import picture
from training.cli_fit import fit_command
from training.data import Batches, Split
from training.errors import DataError, SettingError
from training.losses import LOSSES, METRIC_LOSSES, loss_settings, make_objective
from training.margin_loss import MarginLoss
from training.metric_learning import KINDS, MetricLearning
from training.models import Classifier, architecture
from training.models.heads import with_embedding
from training.normalization import Normalization
from training.objective import BinaryCrossEntropy, CrossEntropy, Objective
from training.retrieval import EmbeddingCrossEntropy, retrieval
from training.transforms import EvalTransform

DEVICE = torch.device("cpu")


def network(dimension: int = 8) -> Classifier:
    torch.manual_seed(0)
    return with_embedding(architecture("resnet20-cifar").build(3), "gem", dimension)


def objective(name: str, **changes: Any) -> Objective:
    torch.manual_seed(0)
    return make_objective(name, classes=3, embedding_dimension=8, **changes)


def coloured(count: int = 8, seed: int = 0) -> Split:
    pixels = [
        np.asarray(picture(label, seed + 100 * label + i, 8, 8)) for label in range(3) for i in range(count)
    ]
    return Split(np.stack(pixels), np.repeat(np.arange(3), count))


def batch() -> tuple[Tensor, Tensor]:
    split = coloured()
    pixels = torch.from_numpy(np.asarray(split.sources))
    return Normalization((0.5,) * 3, (0.25,) * 3)(pixels), torch.from_numpy(split.labels)


@pytest.mark.parametrize("name", METRIC_LOSSES)
def test_each_metric_loss_brings_its_classes_together(name: str) -> None:
    model, loss = network(), objective(name)
    inputs, labels = batch()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.02, momentum=0.9)
    model.train()

    def spread() -> float:
        """Mean cosine inside a class, less that between classes."""
        with torch.no_grad():
            unit = nn.functional.normalize(model.features(inputs), dim=1)
        same = labels[:, None] == labels[None]
        cosine = unit @ unit.T
        return float(cosine[same].mean() - cosine[~same].mean())

    before = spread()
    for _ in range(12):
        step = loss(model, inputs, labels)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
    assert step.logits is None
    assert step.loss.shape == ()
    assert spread() > before + 0.2


@pytest.mark.parametrize("name", METRIC_LOSSES)
def test_proxies_are_parameters_and_stay_float32_under_autocast(name: str) -> None:
    model, loss = network(), objective(name)
    inputs, labels = batch()
    has_proxies = name in ("arcface", "subcenter-arcface", "proxy-anchor")
    assert (len(list(loss.parameters())) > 0) == has_proxies
    with torch.autocast("cpu", torch.bfloat16):
        step = loss(model, inputs, labels)
    assert step.loss.dtype == torch.float32
    step.loss.backward()
    for parameter in loss.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    again = make_objective(name, classes=3, embedding_dimension=8)
    again.load_state_dict(loss.state_dict())
    assert again.state_dict().keys() == loss.state_dict().keys()


@pytest.mark.parametrize("name", METRIC_LOSSES)
@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]], ids=["no pair", "no stranger"])
def test_a_batch_without_pairs_or_strangers_does_no_harm(name: str, labels: list[int]) -> None:
    model, loss = network(), objective(name)
    step = loss(model, batch()[0][:3], torch.tensor(labels))
    step.loss.backward()
    assert torch.isfinite(step.loss)
    for parameter in [*model.parameters(), *loss.parameters()]:
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", ["arcface", "subcenter-arcface"])
def test_an_embedding_on_its_centre_has_a_finite_gradient(name: str) -> None:
    loss = objective(name)
    assert isinstance(loss, MetricLearning)
    (centres,) = loss.parameters()
    embedding = nn.functional.normalize(centres.detach().T[:1].clone(), dim=1).requires_grad_()
    loss.loss(embedding, torch.tensor([0]), None).backward()
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()
    assert centres.grad is not None
    assert torch.isfinite(centres.grad).all()


def test_arcface_is_the_equation_of_its_paper() -> None:
    loss = objective("arcface", margin_degrees=20.0, scale=16.0)
    assert isinstance(loss, MetricLearning)
    (centres,) = loss.parameters()
    embeddings = nn.functional.normalize(torch.randn(5, 8), dim=1)
    labels = torch.tensor([0, 2, 1, 1, 0])
    cosine = embeddings @ nn.functional.normalize(centres, dim=0)
    angle = cosine.acos()
    angle[torch.arange(5), labels] += np.radians(20)
    expected = nn.functional.cross_entropy(16 * angle.cos(), labels)
    found = loss.loss(embeddings, labels, None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", [*METRIC_LOSSES, "cross-entropy"])
def test_the_best_checkpoint_is_chosen_by_retrieval(name: str) -> None:
    model = network()
    scored = make_objective(name, classes=3, embedding_dimension=8, class_disjoint=True)
    assert scored.selects_by == "recall_at_1"
    batches = Batches(coloured(5), EvalTransform(Preprocessing(8, 8, 8)), 4)
    normalization = Normalization((0.5,) * 3, (0.25,) * 3)
    scores = scored.validate(model, normalization, batches, DEVICE)
    assert scores.keys() == {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"}
    assert scores == retrieval(model, normalization, batches, DEVICE)
    assert not model.training
    # Colours that a network tells apart before it has learned anything.
    assert scores["recall_at_1"] > 0.6


def test_classification_is_the_engines() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    plain = make_objective(
        "cross-entropy", classes=3, embedding_dimension=8, class_weights=weights, label_smoothing=0.1
    )
    assert type(plain) is CrossEntropy
    assert plain.class_weights is weights
    assert plain.label_smoothing == 0.1
    several = make_objective("cross-entropy", classes=3, embedding_dimension=8, task="multi_label")
    assert isinstance(several, BinaryCrossEntropy)
    assert several.selects_by == "mean_average_precision"
    assert isinstance(
        make_objective("binary-cross-entropy", classes=3, embedding_dimension=8), BinaryCrossEntropy
    )
    disjoint = make_objective("cross-entropy", classes=3, embedding_dimension=8, class_disjoint=True)
    assert type(disjoint) is EmbeddingCrossEntropy


def test_pair_losses_say_how_many_images_of_a_class_they_want() -> None:
    wanted = {name: getattr(objective(name), "images_per_class", None) for name in LOSSES}
    assert wanted == {
        "cross-entropy": None,
        "binary-cross-entropy": None,
        "margin": None,
        "arcface": None,
        "subcenter-arcface": None,
        "proxy-anchor": None,
        "multi-similarity": 4,
        "triplet": 4,
    }


def test_sub_centers_are_a_setting() -> None:
    assert [tuple(p.shape) for p in objective("subcenter-arcface").parameters()] == [(8, 9)]
    assert [tuple(p.shape) for p in objective("subcenter-arcface", sub_centers=2).parameters()] == [(8, 6)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        SettingError, match="--loss is 'softmax'; expected one of cross-entropy, binary-cross"
    ):
        objective("softmax")
    with pytest.raises(SettingError, match="arcface has no setting alpha; it has margin_degrees"):
        objective("arcface", alpha=3.0)
    with pytest.raises(SettingError, match="cross-entropy has no setting margin"):
        objective("cross-entropy", margin=3.0)
    with pytest.raises(SettingError, match="--loss cross-entropy has no setting target_threshold"):
        objective("cross-entropy", target_threshold=0.2)
    with pytest.raises(
        SettingError, match="triplet wants one label an image; this data set's task is multi_l"
    ):
        make_objective("triplet", classes=3, embedding_dimension=8, task="multi_label")
    with pytest.raises(SettingError, match="arcface has no label smoothing"):
        make_objective("arcface", classes=3, embedding_dimension=8, label_smoothing=0.1)
    with pytest.raises(SettingError, match="arcface has no class weights"):
        make_objective("arcface", classes=3, embedding_dimension=8, class_weights=torch.ones(3))
    with pytest.raises(SettingError, match="expected no mixup or cutmix"):
        objective("arcface")(network(), batch()[0], torch.rand(24, 3))
    with pytest.raises(SettingError, match="with held-out classes"):
        make_objective("binary-cross-entropy", classes=3, embedding_dimension=8, class_disjoint=True)


def test_a_split_without_pairs_has_no_scores() -> None:
    batches = Batches(coloured(1), EvalTransform(Preprocessing(8, 8, 8)), 4)
    with pytest.raises(DataError, match="none of the 3 images"):
        objective("arcface").validate(network(), Normalization((0.5,) * 3, (0.25,) * 3), batches, DEVICE)


def test_settings_are_read_as_typed() -> None:
    assert loss_settings("") == {}
    assert loss_settings(" margin=0.1, alpha = 32 ,") == {"margin": 0.1, "alpha": 32.0}
    settings = loss_settings("margin_degrees=10,scale=16")
    assert isinstance(objective("arcface", **settings), MetricLearning)
    binary = objective("binary-cross-entropy", **loss_settings("target_threshold=0.2"))
    assert isinstance(binary, BinaryCrossEntropy)
    assert binary.target_threshold == 0.2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("arcface", {"scale": 0.0}),
        ("arcface", {"margin_degrees": -1.0}),
        ("subcenter-arcface", {"sub_centers": 2.5}),
        ("subcenter-arcface", {"sub_centers": 0}),
        ("triplet", {"margin": -0.1}),
        ("binary-cross-entropy", {"target_threshold": 1.0}),
        ("binary-cross-entropy", {"target_threshold": -0.1}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=f"--loss {name} has .*; expected a"):
        objective(name, **settings)


@pytest.mark.parametrize("text", ["margin", "margin=", "=1", "margin=wide", "margin=nan", "m=1,m=2"])
def test_settings_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--loss-settings has"):
        loss_settings(text)


def test_the_help_has_the_settings_that_there_are() -> None:
    (option,) = (each for each in fit_command.params if each.name == "loss_settings")
    said = str(option.help)
    for defaults in (MarginLoss.defaults, *(kind.defaults for kind in KINDS.values())):
        for name, value in defaults.items():
            assert f"{name}={value:g}" in said
