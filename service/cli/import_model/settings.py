"""What was asked for, and what it means for the model at hand."""

from dataclasses import dataclass
from pathlib import Path

from service.cli.import_model.errors import ImportRefused
from service.cli.import_model.foreign import Foreign
from service.cli.import_model.pixels import Channels, PixelInput
from service.preprocess import Preprocessing


@dataclass(frozen=True)
class ImportSettings:
    """The options of `fovea import-model`, whose help says more; None where they were left out.

    Attributes:
        file, repository, name, version: from where to where; no version takes the next free one.
        labels: a file of them.
        input_size: height and width.
        resize_size, interpolation, jpeg_scaled_decode: as `Preprocessing` has them.
        layout, color_order, scale, mean, std: as `PixelInput` has them.
        logits, probabilities, embedding: names of tensors.
        embedding_only: whether the model shall have no classes.
        token: "cls" or "mean".
        task: "single_label" or "multi_label".
        images: a folder to compare on.
        architecture, training_data, licence: for the record.
    """

    file: Path
    repository: Path
    name: str
    version: int | None = None
    labels: Path | None = None
    input_size: tuple[int, int] | None = None
    resize_size: int | None = None
    interpolation: str = "bilinear"
    jpeg_scaled_decode: bool = False
    layout: str | None = None
    color_order: str = "RGB"
    scale: float = 1 / 255
    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)
    logits: str | None = None
    probabilities: str | None = None
    embedding: str | None = None
    embedding_only: bool = False
    token: str | None = None
    task: str | None = None
    images: Path | None = None
    architecture: str = ""
    training_data: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Raises ImportRefused where two options can't go together."""
        if self.logits is not None and self.probabilities is not None:
            raise ImportRefused("give either --logits or --probabilities")
        if self.embedding_only:
            for option in ("logits", "probabilities", "labels", "task"):
                if getattr(self, option) is not None:
                    raise ImportRefused(f"--{option} is for a model with classes, not for --embedding-only")

    def pixels(self, foreign: Foreign) -> tuple[PixelInput, int, int]:
        """What the model expects of a picture, and its input's height and width.

        Raises:
            ImportRefused: the graph leaves something open that wasn't said, or says something else.
        """
        layout = self._layout(foreign)
        first, second = (2, 3) if layout == "NCHW" else (1, 2)
        channels = foreign.dims[1 if layout == "NCHW" else 3]
        if channels not in (None, 3):
            raise ImportRefused(
                f"{foreign.file}: its input takes {channels} channels as {layout}; expected 3: RGB or BGR"
            )
        fixed = (foreign.dims[first], foreign.dims[second])
        size = self.input_size or fixed
        height, width = (
            asked if asked is not None else there for asked, there in zip(size, fixed, strict=True)
        )
        if height is None or width is None:
            raise ImportRefused(
                f"{foreign.file}: the graph leaves the picture's size open; say it with --input-size"
            )
        if any(there not in (None, asked) for asked, there in zip((height, width), fixed, strict=True)):
            raise ImportRefused(
                f"--input-size is {height}x{width}, but {foreign.file} takes {fixed[0] or 'any'}x"
                f"{fixed[1] or 'any'} (height x width)"
            )
        return (
            PixelInput(layout, self.color_order, self.scale, self.mean, self.std),
            height,
            width,
        )

    def _layout(self, foreign: Foreign) -> str:
        if self.layout is not None:
            return self.layout
        found = [layout for layout, place in (("NCHW", 1), ("NHWC", 3)) if foreign.dims[place] == 3]
        if len(found) != 1:
            shape = [dim if dim is not None else "?" for dim in foreign.dims]
            raise ImportRefused(
                f"{foreign.file}: its input of shape {shape} doesn't say which dimension holds the 3 "
                "channels; say it with --layout NCHW or --layout NHWC"
            )
        return found[0]

    def preprocessing(self, height: int, width: int) -> Preprocessing:
        """What the service does to an image before the graph.

        Raises:
            ImportRefused: the sizes don't go together.
        """
        largest = max(height, width)
        # As ImageNet is mostly evaluated: 256 for 224.
        resize = self.resize_size or round(largest * 8 / 7)
        try:
            return Preprocessing(resize, height, width, self.interpolation, self.jpeg_scaled_decode)
        except ValueError as error:
            raise ImportRefused(str(error)) from error

    def read_labels(self, classes: int) -> tuple[str, ...]:
        """One a class; numbers where there is no file of them.

        Raises:
            ImportRefused: the file can't be read, has an empty line, or another number of labels.
        """
        if self.labels is None:
            return tuple(map(str, range(classes)))
        try:
            text = self.labels.read_bytes().decode("utf-8-sig").rstrip("\r\n\t ")
        except (OSError, UnicodeDecodeError) as error:
            raise ImportRefused(f"{self.labels}: can't be read as UTF-8 text: {error}") from error
        # Not splitlines, which splits at characters that a label may hold.
        labels = tuple(line.strip("\r\t ") for line in text.split("\n"))
        if "" in labels:
            raise ImportRefused(
                f"{self.labels}: line {labels.index('') + 1} is empty; expected one label a line"
            )
        if len(labels) != classes:
            raise ImportRefused(
                f"{self.labels}: has {len(labels)} labels for {classes} logits; expected one each"
            )
        return labels
