"""Recall@k and mAP@R against a plain reading of their definitions."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.errors import DataError
from training.retrieval_metrics import retrieval_scores


def by_hand(embeddings: NDArray[np.float64], labels: NDArray[np.int64], k: int) -> tuple[float, float]:
    """Recall@k and mAP@R, one query after another; equally near wrong ones first."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    recalls, precisions = [], []
    for query, label in enumerate(labels):
        others = [index for index in range(len(labels)) if index != query]
        relevant = int(sum(labels[index] == label for index in others))
        if relevant == 0:
            continue
        order = sorted(others, key=lambda index: (-float(unit[query] @ unit[index]), labels[index] == label))
        right = np.array([labels[index] == label for index in order])
        recalls.append(right[:k].any())
        first = right[:relevant]
        precisions.append(sum(first[: i + 1].mean() for i in range(relevant) if first[i]) / relevant)
    return float(np.mean(recalls)), float(np.mean(precisions))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block_elements", [1, 137, None])
def test_the_scores_are_those_of_the_definition(seed: int, block_elements: int | None) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 7, 60)
    labels[-1] = 99  # alone: searched, but never a query
    embeddings = random.normal(size=(60, 7)) + np.eye(7)[labels % 7]
    scores = retrieval_scores(
        torch.from_numpy(embeddings),
        torch.from_numpy(labels),
        recall_at=(1, 3),
        block_elements=block_elements,
    )
    recall_at_1, map_at_r = by_hand(embeddings, labels, 1)
    assert scores.recall_at == pytest.approx({1: recall_at_1, 3: by_hand(embeddings, labels, 3)[0]})
    assert scores.map_at_r == pytest.approx(map_at_r)
    assert scores.queries == sum(int((labels == label).sum() > 1) * 1 for label in labels)
    assert 0.2 < recall_at_1 < 1


def test_an_example_worked_out() -> None:
    # Along an arc, so that neighbours are those in this list of angles; R is 3.
    angles = torch.tensor([0.0, 0.1, 0.22, 0.3, 3.0, 0.43])
    labels = torch.tensor([0, 0, 1, 0, 0, 2])
    scores = retrieval_scores(torch.stack([angles.cos(), angles.sin()], dim=1), labels)
    first = (1 + 2 / 3) / 3  # right, wrong, right
    second = (1 + 2 / 3) / 3  # likewise
    third = (1 / 3) / 3  # wrong, wrong, right
    fourth = (1 / 2) / 3  # wrong, right, wrong
    assert scores.queries == 4
    assert scores.map_at_r == pytest.approx((first + second + third + fourth) / 4)
    assert scores.recall_at[1] == 0.5
    assert scores.named().keys() == {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"}


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [3, 1, 0, 2]])
def test_a_network_that_gives_everything_the_same_embedding_scores_nothing(order: list[int]) -> None:
    labels = torch.tensor([0, 0, 1, 1])[order]
    last_bits = 1e-6 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for embeddings in (torch.ones(4, 8), torch.zeros(4, 8), 1 + last_bits):
        scores = retrieval_scores(embeddings, labels, recall_at=(1, 2, 3))
        assert (scores.recall_at, scores.map_at_r) == ({1: 0.0, 2: 0.0, 3: 1.0}, 0.0)


def test_perfect_embeddings_score_one_whatever_their_length() -> None:
    labels = torch.arange(5).repeat_interleave(4)
    embeddings = torch.eye(5)[labels] * torch.arange(1, 21)[:, None]
    scores = retrieval_scores(embeddings, labels)
    assert (scores.recall_at, scores.map_at_r) == ({1: 1.0, 5: 1.0, 10: 1.0}, 1.0)
    # One class alone: all answers are right.
    assert retrieval_scores(embeddings[:4], labels[:4]).map_at_r == 1.0


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="none of the 3 images to retrieve has another one of its class"):
        retrieval_scores(torch.eye(3), torch.arange(3))
    with pytest.raises(DataError, match="isn't a number"):
        retrieval_scores(torch.tensor([[1.0], [torch.nan]]), torch.tensor([0, 0]))
