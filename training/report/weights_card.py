"""The model card of weights that no run of ours trained: what is known of them, and no more."""

from collections.abc import Mapping
from typing import Any

from service.preprocess import Preprocessing
from training.report.card import rendered
from training.report.card_parts import (
    MADE_WITH,
    MISSING,
    caveat,
    described_input,
    front_matter,
    metrics_are,
    misuse,
    summary,
    use,
)


def weights_card(manifest: Mapping[str, Any], preprocessing: Preprocessing) -> str:
    """Markdown; the same sections as `card.model_card`.

    Args:
        manifest: of the package that the card goes with.
        preprocessing: what the manifest says of it.
    """
    task, labels, known = manifest["task"], manifest["labels"], manifest["provenance"]
    details = [
        ("version", manifest["version"]),
        ("architecture", manifest["architecture"]),
        ("weights", known["recipe"]),
        ("input", described_input(preprocessing)),
        ("exported", known["created"]),
        ("commit", known["commit"]),
        ("licence", known["licence"] or f"not stated; that of the weights counts: {known['recipe']}"),
        ("made with", MADE_WITH),
    ]
    package = f"models/{manifest['name']}/{manifest['version']}"
    return rendered(
        {
            "front_matter": front_matter(
                name=manifest["name"],
                task=task,
                tags=(manifest["architecture"], "onnx"),
                licence=known["licence"],
            ),
            "name": manifest["name"],
            "summary": summary(
                task, len(labels), f"{manifest['architecture']}, with weights that others trained"
            ),
            "details": [(title, value) for title, value in details if value],
            "use": use(task, labels),
            "misuse": misuse(task),
            "worst": [],
            "metrics_are": metrics_are(task),
            "caveat": caveat(task),
            "evaluation_data": "None: no accuracy was measured on a test set when the package was made.",
            "training_data": known["training_data"] or MISSING,
            "numbers": [],
            "no_numbers": "Not measured here. What the weights' authors report holds for their images and "
            f"their preprocessing: `fovea-train evaluate {package} --data …` measures on yours.",
            "temperature": "",
            "variants": manifest["variants"],
            "recipe": "",
        }
    )
