"""PCA-whitening: uncorrelated directions of equal strength, as scikit-learn finds them."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor, nn

from training.errors import SettingError
from training.retrieval_metrics import retrieval_scores
from training.whitening import LEAST_SHRINKAGE, fit_whitening


def correlated(count: int, width: int = 12, seed: int = 0) -> Tensor:
    """Features with a mean, and directions of very different strength."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(7))
    strengths = torch.logspace(0, -2, width)
    return torch.randn(count, width, generator=random) * strengths @ mixing + 2.0


def unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features, dim=1)


def test_what_comes_out_is_uncorrelated_and_of_unit_variance() -> None:
    features = correlated(9001)
    whitening = fit_whitening(features)
    white = whitening(unit(features)).double()
    assert torch.allclose(white.mean(dim=0), torch.zeros(12, dtype=torch.float64), atol=1e-3)
    covariance = white.T @ white / len(white)
    shrunk = covariance - covariance.diagonal().diag()
    assert shrunk.abs().max() < 1e-3
    # The strongest are whitened fully; shrinkage holds the weakest back.
    diagonal = covariance.diagonal()
    assert torch.allclose(diagonal[:4], torch.ones(4, dtype=torch.float64), atol=0.02)
    assert (diagonal <= 1.001).all()
    assert whitening.images == 9001


def test_the_strongest_directions_are_kept() -> None:
    features = correlated(3000)
    everything, few = fit_whitening(features), fit_whitening(features, 5)
    assert few.dimension == 5
    assert torch.equal(few.projection, everything.projection[:, :5])
    assert torch.equal(few.mean, everything.mean)


@pytest.mark.parametrize("count", [13, 40, 400])
def test_the_shrinkage_is_ledoit_and_wolfs(count: int) -> None:
    features = correlated(count)
    expected = float(ledoit_wolf_shrinkage(unit(features).double().numpy()))
    assert fit_whitening(features, 2).shrinkage == pytest.approx(max(expected, LEAST_SHRINKAGE), rel=1e-6)


def test_whitening_helps_where_common_variation_drowns_the_classes() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 20
    classes = torch.randn(20, 16, generator=random)
    common = torch.randn(400, 3, generator=random) @ torch.randn(3, 16, generator=random) * 6
    features = classes[labels] + common + 0.15 * torch.randn(400, 16, generator=random) + 8
    fitted, held_back = labels < 10, labels >= 10
    whitening = fit_whitening(features[fitted])
    plain = retrieval_scores(features[held_back], labels[held_back])
    white = retrieval_scores(whitening(unit(features[held_back])), labels[held_back])
    assert white.map_at_r > plain.map_at_r + 0.1
    assert white.recall_at[1] > plain.recall_at[1]


def test_a_direction_that_never_varies_does_no_harm() -> None:
    features = correlated(500)
    features[:, 3] = 0.0
    whitening = fit_whitening(features, 8)
    white = whitening(unit(features))
    assert torch.isfinite(white).all()
    # An image that does have something there moves no further than the floor lets it.
    stray = features[:1].clone()
    stray[0, 3] = 1e-3
    assert (whitening(unit(stray)) - white[:1]).norm() < 1


def test_the_fit_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = correlated(1000)
    whole = fit_whitening(features)
    monkeypatch.setattr("training.whitening._BLOCK_ROWS", 7)
    parts = fit_whitening(features)
    assert torch.allclose(whole.mean, parts.mean, atol=1e-7)
    aligned = (whole.projection * parts.projection).sum(dim=0).sign()
    assert torch.allclose(whole.projection, parts.projection * aligned, rtol=1e-3, atol=1e-3)


def test_few_images_show_few_directions() -> None:
    with pytest.raises(
        SettingError, match="--whiten is 9; the 6 training images' embeddings of 12 dimensions"
    ):
        fit_whitening(correlated(6), 9)
    assert fit_whitening(correlated(6), 5).dimension == 5
    with pytest.raises(SettingError, match="vary in 0 directions"):
        fit_whitening(torch.ones(5, 4), 2)
    with pytest.raises(SettingError, match="--whiten is 0; expected a number of dimensions, at least 1"):
        fit_whitening(correlated(6), 0)
    with pytest.raises(SettingError, match="isn't a number"):
        fit_whitening(torch.from_numpy(np.array([[np.nan, 1.0], [0.0, 1.0]])), 1)
