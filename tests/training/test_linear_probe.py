"""The probe's head: the optimum that scikit-learn finds, and the weight decay that val likes best."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from training.errors import TrainingDiverged
from training.linear_probe import WEIGHT_DECAYS, fit_probe


def clusters(
    count: int, classes: int = 4, width: int = 10, noise: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Overlapping clouds, with features of very different scale."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = centres[labels] + noise * torch.randn(count, width, generator=random)
    return features * torch.logspace(-2, 2, width) + 5, labels


@pytest.mark.parametrize("weight_decay", [1.0, 0.01, 0.0003])
def test_the_head_is_scikit_learns(weight_decay: float) -> None:
    train, val = clusters(300), clusters(100, seed=1)
    probe = fit_probe(train, val, 4, weight_decays=[weight_decay])
    features = train[0].double().numpy()
    center, spread = features.mean(axis=0), features.std(axis=0)
    reference = LogisticRegression(C=1 / (weight_decay * 300), tol=1e-8, max_iter=5000)
    reference.fit((features - center) / spread, train[1].numpy())
    expected = reference.predict_proba((val[0].double().numpy() - center) / spread)
    found = torch.softmax(val[0] @ probe.weight.T + probe.bias, dim=1).numpy()
    assert np.abs(found - expected).max() < 0.01
    assert probe.best.val_score == pytest.approx(
        (expected.argmax(axis=1) == val[1].numpy()).mean(), abs=0.011
    )


def test_the_weight_decay_is_what_val_likes_best() -> None:
    # Many noisy features, few images: a small penalty learns them by heart.
    train = clusters(60, width=40, noise=3.0)
    val = clusters(400, width=40, noise=3.0, seed=1)
    probe = fit_probe(train, val, 4)
    # From the strongest on, until four in a row were no better.
    tried = [trial.weight_decay for trial in probe.trials]
    assert tried == sorted(WEIGHT_DECAYS, reverse=True)[: len(tried)]
    assert len(tried) == min(len(WEIGHT_DECAYS), tried.index(probe.best.weight_decay) + 5)
    scores = {trial.weight_decay: trial.val_score for trial in probe.trials}
    assert probe.best.val_score == max(scores.values())
    assert scores[min(scores)] <= probe.best.val_score
    assert probe.trials[-1].train_loss < probe.best.train_loss
    logits = val[0] @ probe.weight.T + probe.bias
    assert float((logits.argmax(dim=1) == val[1]).float().mean()) == pytest.approx(
        probe.best.val_score, abs=0.006
    )


def test_several_labels_an_image_have_a_sigmoid_each() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(300, 6, generator=random)
    labels = (features[:, :3] + 0.3 * torch.randn(300, 3, generator=random) > 0.5).float()
    probe = fit_probe((features[:200], labels[:200]), (features[200:], labels[200:]), 3)
    assert probe.best.val_score > 0.9
    logits = features[200:] @ probe.weight.T + probe.bias
    assert (((logits > 0) == labels[200:].bool()).float().mean()) > 0.85


def test_class_weights_count() -> None:
    features, labels = clusters(400, classes=2, noise=2.0)
    rare = (labels == 0) | (torch.arange(400) % 10 == 1)
    train, val = (features[rare], labels[rare]), clusters(400, classes=2, noise=2.0, seed=1)

    def recall_of_rare(weights: Tensor | None) -> float:
        probe = fit_probe(train, val, 2, weight_decays=[0.01], class_weights=weights)
        logits = val[0] @ probe.weight.T + probe.bias
        return float((logits.argmax(dim=1) == 1)[val[1] == 1].float().mean())

    counts = torch.bincount(train[1]).float()
    assert recall_of_rare(counts.sum() / (2 * counts)) > recall_of_rare(None) + 0.05


def test_a_feature_that_never_varies_and_one_class_missing_from_val_do_no_harm() -> None:
    train, val = clusters(200), clusters(80, seed=1)
    train[0][:, 0] = 3.0
    some = val[1] != 2
    probe = fit_probe(train, (val[0][some], val[1][some]), 4)
    assert torch.isfinite(probe.weight).all()
    assert (probe.weight[:, 0] == 0).all()


def test_features_that_are_no_numbers_are_refused() -> None:
    train, val = clusters(40), clusters(40, seed=1)
    train[0][3, 3] = float("inf")
    with pytest.raises(TrainingDiverged, match="features that aren't numbers"):
        fit_probe(train, val, 4)
