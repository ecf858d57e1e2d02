"""What a model card says that depends on the kind of model, and the metadata above it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from service.preprocess import Preprocessing
from training.config import RunConfig
from training.errors import TrainingError
from training.models import Published, architecture

MISSING = "[More Information Needed]"
MADE_WITH = "Fovea (fovea-train)"
_LISTED = 12
_METRICS = {
    "embedding": "Recall@k: the share of images with an image of their class among their k nearest. mAP@R: "
    "the mean average precision at R, the number of other images of the class.",
    "multi_label": "Mean over the classes of the average precision of their ranking of the images; F1 at the "
    "threshold given; negative log-likelihood; expected calibration error over all images and classes.",
    "single_label": "accuracy@k: the share of images whose class is among the k most probable. Precision, "
    "recall and F1 as means over the classes. Negative log-likelihood in nats, and expected calibration "
    "error in 15 bins of equal width, of the probabilities as they are served.",
}


def metrics_are(task: str) -> str:
    """What the numbers mean."""
    return _METRICS[task]


def summary(task: str, classes: int, origin: str) -> str:
    """What the model does, in a sentence, and what it was made of, in words that follow one."""
    about = {
        "single_label": f"Says which of {classes:,} classes an image shows",
        "multi_label": f"Says which of {classes:,} classes an image has, any number of them",
        "embedding": "Turns images into vectors that are near for similar images",
    }[task]
    return f"{about}. {origin}."


def use(task: str, labels: Sequence[str]) -> str:
    """What the model is for."""
    if task == "embedding":
        return "finding similar images, by the nearness of their embeddings"
    named = ", ".join(labels[:_LISTED])
    more = f" and {len(labels) - _LISTED:,} more" if len(labels) > _LISTED else ""
    return f"images like those it learned from, of {named}{more}"


def misuse(task: str) -> str:
    """What the model isn't for, as far as a program can know."""
    if task == "embedding":
        return "naming what an image shows. Recognising people."
    return (
        "images of anything else than these classes: the model answers with one of them all the same, and "
        "its probabilities say nothing there. Decisions about people."
    )


def caveat(task: str) -> str:
    """What is easily taken wrong."""
    if task == "embedding":
        return (
            "Embeddings of one model, and one precision of it, are comparable; those of two models never are."
        )
    if task == "multi_label":
        return "A probability is of one class alone; those of an image don't add up to anything."
    return (
        "A probability is that of one class against the others that the model knows, not that the image "
        "shows anything it knows."
    )


def details(config: RunConfig, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the first table."""
    provenance = manifest.get("provenance", {})
    published = _published(config)
    start = "random weights"
    licence = str(provenance.get("licence", "")) or MISSING
    if config.model.pretrained:
        start = published.source if published else f"the weights published for {config.model.architecture}"
        theirs = published.licence if published else ""
        if licence == MISSING:
            licence = f"not stated; the weights that it started from: {theirs or 'licence not known'}"
    found = [
        ("version", str(manifest.get("version", ""))),
        ("architecture", config.model.architecture),
        ("started from", config.model.init_weights or start),
        ("input", described_input(config.preprocessing)),
        ("trained", config.run.created),
        ("exported", str(provenance.get("created", ""))),
        ("commit", str(provenance.get("commit", "") or config.run.commit)),
        ("licence", licence),
        ("made with", MADE_WITH),
    ]
    return [(title, value) for title, value in found if value]


def described_input(spec: Preprocessing) -> str:
    """What the model takes, and how an image becomes that."""
    return (
        f"{spec.crop_width} × {spec.crop_height} pixels, RGB; the short side brought to "
        f"{spec.resize_short_side} ({spec.interpolation}), cut from the centre"
    )


def _published(config: RunConfig) -> Published | None:
    """The published weights that a run started from; None where from none, or they aren't known here."""
    told = config.model
    if not told.pretrained:
        return None
    try:
        return architecture(told.architecture).published_version(told.pretrained_version or None)
    except TrainingError:  # of a library that isn't installed, or doesn't know them any more
        return None


def front_matter(
    *,
    name: str,
    task: str,
    tags: Sequence[str],
    licence: str,
    data: str = "",
    values: Mapping[str, float | None] | None = None,
) -> str:
    """YAML between lines of three dashes, as the Hub reads it.

    Args:
        name: the model's.
        task: its task.
        tags: beside that of the task.
        licence: of the weights; empty leaves it out.
        data: what `values` were measured on.
        values: scores by the names of evaluations; None where there are none.
    """
    values = values or {}
    kind = "image-feature-extraction" if task == "embedding" else "image-classification"
    lines = ["---", "library_name: fovea", f"pipeline_tag: {kind}"]
    if licence:
        lines.append(f"license: {_scalar(licence.lower())}")
    lines += ["tags:", *(f"- {_scalar(tag)}" for tag in (kind, *tags))]
    scores = [
        (metric, title, values[key])
        for key, metric, title in (
            ("top1_accuracy", "accuracy", "accuracy@1"),
            ("mean_average_precision", "mean_average_precision", "mean average precision"),
            ("recall_at_1", "recall_at_1", "Recall@1"),
        )
        if values.get(key) is not None
    ]
    if scores:
        data = _scalar(data)
        lines += [
            "model-index:",
            f"- name: {_scalar(name)}",
            "  results:",
            "  - task:",
            f"      type: {kind}",
        ]
        lines += ["    dataset:", f"      name: {data}", f"      type: {data}", "    metrics:"]
        for metric, title, value in scores:
            lines += [f"    - type: {metric}", f"      name: {_scalar(title)}", f"      value: {value}"]
    return "\n".join([*lines, "---", ""])


def temperature(manifest: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> str:
    """A sentence; empty where there is none."""
    value = manifest.get("temperature", fitted["temperature"] if fitted else 1.0)
    if value == 1 or fitted is None or fitted["temperature"] != value:
        return "" if value == 1 else f"Logits are divided by a temperature of {value:.4g}."
    return (
        f"Logits are divided by a temperature of {value:.4g}, fitted on {fitted['images']:,} val images: "
        f"their mean negative log-likelihood fell from {fitted['nll_before']:.4f} to "
        f"{fitted['nll_after']:.4f}; their calibration error was {fitted['ece_before']:.2%} and is "
        f"{fitted['ece_after']:.2%}."
    )


def _scalar(text: str) -> str:
    """As YAML reads it, which JSON's strings are too."""
    return json.dumps(text, ensure_ascii=False)
