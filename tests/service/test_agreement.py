"""The gates of `auto`, and that the export holds the same."""

from dataclasses import replace

import pytest

from service.agreement import GATES, MAX_ACCURACY_LOSS, Agreement
from training import agreement as of_training

GOOD = Agreement(200, 1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("precision", "agreement", "words"),
    [
        ("fp16", replace(GOOD, top1_agreement=0.999, embedding_cosine=0.9999), ""),
        ("fp16", replace(GOOD, top1_agreement=0.9989), "top1_agreement 0.9989 is below 0.999"),
        ("fp16", replace(GOOD, embedding_cosine=0.9998), "embedding_cosine 0.9998 is below 0.9999"),
        ("bf16", replace(GOOD, top1_agreement=0.99, embedding_cosine=0.999), ""),
        ("bf16", replace(GOOD, top1_agreement=0.989), "below 0.99"),
        ("bf16", replace(GOOD, embedding_cosine=0.9989), "below 0.999"),
        ("int8", replace(GOOD, top1_agreement=0.98, embedding_cosine=0.98), ""),
        ("int8", replace(GOOD, top1_agreement=0.979), "below 0.98"),
        ("int8", replace(GOOD, embedding_cosine=0.979), "below 0.98"),
        ("int8", replace(GOOD, top1_accuracy=0.895, reference_top1_accuracy=0.9), ""),
        ("int8", replace(GOOD, top1_accuracy=0.894, reference_top1_accuracy=0.9), "more than 0.005 below"),
        ("int8", replace(GOOD, top1_accuracy=0.95, reference_top1_accuracy=0.9), ""),
        ("int8", replace(GOOD, top1_accuracy=0.1), ""),
        ("fp32", replace(GOOD, top1_agreement=0.5), ""),
        # A model without classes has its embeddings only.
        ("int8", Agreement(200, None, 0.1, 0.98), ""),
        ("int8", Agreement(200, None, 0.1, 0.979), "embedding_cosine 0.979 is below 0.98"),
        # Of several labels an image the decisions count, not which is the surest.
        ("int8", replace(GOOD, top1_agreement=0.5, decision_agreement=0.98), ""),
        ("int8", replace(GOOD, decision_agreement=0.979), "decision_agreement 0.979 is below 0.98"),
        ("fp16", replace(GOOD, decision_agreement=0.9989), "decision_agreement 0.9989 is below 0.999"),
        ("fp32", replace(GOOD, decision_agreement=0.5), ""),
    ],
)
def test_the_gates(precision: str, agreement: Agreement, words: str) -> None:
    shortfall = agreement.shortfall(precision)
    assert words in shortfall
    assert bool(words) == bool(shortfall)


def test_the_export_holds_the_same_gates() -> None:
    theirs = {name: (gate.top1_agreement, gate.embedding_cosine) for name, gate in of_training.GATES.items()}
    assert theirs == {name: (gate.top1_agreement, gate.embedding_cosine) for name, gate in GATES.items()}
    assert of_training.MAX_ACCURACY_LOSS == MAX_ACCURACY_LOSS
