"""Do a foreign model's answers depend on the picture?"""

import numpy as np
from numpy.typing import NDArray

from service.cli.import_model.compare import Expected, probabilities_of

# Of values that are the same but for rounding, over the largest of them.
_ROUNDING = 1e-5
_ACTIVATIONS = {"single_label": "Softmax", "multi_label": "Sigmoid"}


def indifference(task: str, expected: Expected, pictures: NDArray[np.uint8]) -> str:
    """What to warn of; empty where the pictures get different answers, or aren't different themselves.

    Args:
        task: of the model.
        expected: what it gives for the pictures.
        pictures: uint8 [pictures, height, width, 3].
    """
    if (pictures == pictures[0]).all():
        return ""
    answers = {"embeddings": expected.embedding}
    if task in _ACTIVATIONS:
        answers = {"probabilities": probabilities_of(expected.logits, _ACTIVATIONS[task])} | answers
    same = [name for name, values in answers.items() if _all_alike(values)]
    if not same:
        return ""
    return (
        f"its {' and its '.join(same)} are the same for all {len(pictures)} pictures that it was tried on. "
        "Is it the trained model, and are --layout, --color-order, --scale, --mean and --std what it was "
        "trained with? --images FOLDER tries it on real ones"
    )


def _all_alike(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values, axis=0).max() <= _ROUNDING * np.abs(values).max())
