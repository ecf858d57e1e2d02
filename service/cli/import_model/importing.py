"""The steps: read → choose tensors → run as it is → package → run as the service does → publish."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.cli.import_model.batches import AS_IT_IS, ways_to_batch
from service.cli.import_model.compare import (
    BATCH_SIZES,
    TOLERANCES,
    Comparison,
    Expected,
    Tolerance,
    compare,
)
from service.cli.import_model.differs import indifference
from service.cli.import_model.errors import ImportRefused
from service.cli.import_model.foreign import Foreign, read_foreign
from service.cli.import_model.package import (
    Facts,
    check_name,
    document,
    next_version,
    staged,
    write_manifest,
    write_model,
)
from service.cli.import_model.pixels import folder_pictures, generated_pictures
from service.cli.import_model.recipe import Recipe, Values, decide
from service.cli.import_model.reference import quiet
from service.cli.import_model.settings import ImportSettings
from service.errors import InferenceFailed, StartError
from service.manifest import read_manifest
from service.model_settings import ModelSettings
from service.session import open_sessions


@dataclass(frozen=True)
class Imported:
    """A published package.

    Attributes:
        folder: <repository>/<name>/<version>.
        comparison: of it with the foreign model.
        warning: what is odd about the model; empty where nothing is.
    """

    folder: Path
    comparison: Comparison
    warning: str


def import_model(settings: ImportSettings, say: Callable[[str], None] = lambda _line: None) -> Imported:
    """Package a foreign model, if the service computes from the package what the model computes by itself.

    Args:
        settings: what was asked for.
        say: prints a line; told what was found and decided.

    Raises:
        ImportRefused: it can't be packaged; nothing was published.
    """
    check_name(settings.name)
    foreign = read_foreign(settings.file)
    pixels, height, width = settings.pixels(foreign)
    spec = settings.preprocessing(height, width)
    name = foreign.input_name
    made = f"opset {foreign.opset}, {foreign.precision}"
    say(f"{foreign.file}: {made}, input {name!r} {pixels.layout}, {height}x{width}")
    pictures = (
        generated_pictures(height, width)
        if settings.images is None
        else folder_pictures(settings.images, spec)
    )
    recipe, values = decide(settings, foreign, (pixels, height, width), pixels(pictures))
    labels = () if recipe.source is None else settings.read_labels(recipe.classes)
    for line in _found(settings, recipe):
        say(line)
    version = settings.version or next_version(settings.repository, settings.name)
    facts = Facts(
        settings.name,
        version,
        settings.architecture or foreign.file.stem,
        labels,
        spec,
        _origin(foreign, recipe),
        settings.training_data,
        settings.licence,
        foreign.precision,
    )
    expected = _expected(recipe, values, TOLERANCES[foreign.precision])
    with staged(settings.repository, settings.name, version) as folder:
        comparison = _package(foreign, recipe, facts, folder, pictures, expected, say)
    published = settings.repository / settings.name / str(version)
    return Imported(published, comparison, indifference(recipe.task, expected, pictures))


def _expected(recipe: Recipe, values: Values, tolerance: Tolerance) -> Expected:
    embedding = recipe.embedding_of(values[recipe.embedding])
    source, none = recipe.source, np.empty((len(embedding), 0))
    if source is None:
        return Expected(none, embedding, "", none, tolerance)
    outputs = values[source.output]
    activation = source.activation if source.output != source.tensor else ""
    return Expected(
        recipe.logits_of(values[source.tensor]),
        embedding,
        activation,
        outputs.reshape(len(outputs), -1) if activation else none,
        tolerance,
    )


def _package(
    foreign: Foreign,
    recipe: Recipe,
    facts: Facts,
    folder: Path,
    pictures: NDArray[np.uint8],
    expected: Expected,
    say: Callable[[str], None],
) -> Comparison:
    """Write the first way to batch whose package gives what is expected."""
    failures = []
    settings = ModelSettings(execution_provider="cpu", compile_cache="", max_batch_size=max(BATCH_SIZES))
    for way, packaged in ways_to_batch(foreign, recipe):
        manifest = document(facts, recipe, packaged)
        write_model(folder, packaged, manifest)
        write_manifest(folder, manifest, facts.precision, None)
        try:
            with quiet():
                (session,) = open_sessions(read_manifest(folder), settings)
                comparison = compare(expected, session, pictures)
        except (StartError, InferenceFailed) as error:
            failures.append(f"{way}: {_first_line(error)}")
            continue
        if comparison.good:
            write_manifest(folder, manifest, facts.precision, comparison.agreement)
            if foreign.fixed_batch is not None or way != AS_IT_IS:
                say(f"made for batches of {foreign.fixed_batch or 1}; packaged for any: {way}")
            return comparison
        failures.append(f"{way}: {comparison}")
    raise ImportRefused(
        f"{foreign.file}: in batches of {BATCH_SIZES[0]} and {BATCH_SIZES[1]} the packaged graph doesn't "
        "give what the model gives by itself; nothing was published. Export it with a dynamic batch. "
        f"{'; '.join(failures)}"
    )


def _found(settings: ImportSettings, recipe: Recipe) -> list[str]:
    pixels, source = recipe.pixels, recipe.source
    lines = [
        f"pixels: {pixels.color_order} × {pixels.scale:.6g}, − mean {_numbers(pixels.mean)}, ÷ std "
        f"{_numbers(pixels.std)}"
    ]
    if source is not None:
        how = f", before its {source.activation}" if source.activation else ""
        if source.probabilities:
            how = ", probabilities, whose logarithms are taken"
        named = "" if settings.labels else "; without --labels they are called 0, 1, 2, …"
        lines.append(f"logits: {recipe.classes} classes, {recipe.task}, of {source.tensor!r}{how}{named}")
    how = {2: "", 3: f", token {recipe.token}", 4: ", its mean over the picture"}[recipe.rank]
    lines.append(f"embedding: {recipe.dimension} numbers of {recipe.embedding!r}{how}, to unit length")
    return lines


def _origin(foreign: Foreign, recipe: Recipe) -> str:
    parts = [f"fovea import-model {foreign.file.name}, SHA-256 {foreign.sha256}"]
    if recipe.source is not None:
        kind = "probabilities" if recipe.source.probabilities else "logits"
        parts.append(f"{kind} {recipe.source.tensor}")
    token = f" token {recipe.token}" if recipe.token else ""
    parts.append(f"embedding {recipe.embedding}{token}")
    return ", ".join(parts)


def _numbers(channels: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:g}" for value in channels)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
