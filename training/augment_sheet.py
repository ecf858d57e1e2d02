"""A picture of what each augmentation does to the same images: to look at before hours of training."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.augment import mirrored, operations
from training.augment_mix import Mix
from training.config import AugmentationConfig, RunConfig
from training.data import Dataset
from training.seeds import seed_step
from training.setup import train_batches

# What is usual, for what the run doesn't use itself.
USUAL: dict[str, Any] = {
    "shift": 0.1, "rotation": 15.0, "shear": 10.0, "zoom": 0.2, "elastic": 0.02, "colour": 0.4,
    "lighting": 0.1, "erasing": 1.0, "rand_augment": 9, "trivial_augment": True, "mixup": 0.2, "cutmix": 1.0,
}  # fmt: skip
_MARGIN = 4
# Of the sheet's width, and at least and at most so many pixels.
_TITLE_SHARE, _LEAST_TITLE, _LARGEST_TITLE = 1 / 45, 14, 40
_OTHERS = ("crop", "mirror", "train_size", "rand_augment_operations")


def augmentation_sheet(config: RunConfig, dataset: Dataset, images: int) -> Image.Image:
    """One row for what the loader gives, one for all that the run does, and one for each single thing.

    Args:
        config: of the run that one thinks of.
        dataset: the first pictures of its shuffled training split are shown.
        images: how many.
    """
    chosen = replace(config, optimization=replace(config.optimization, batch_size=images))
    batches = train_batches(replace(chosen, run=replace(config.run, workers=0)), dataset.train)
    batches.epoch = 1
    pixels, _ = next(iter(batches))
    told = config.augmentation
    rows = [(f"loaded (crop {told.crop})", _shares(pixels)), ("this run", _augmented(told, pixels, config))]
    if told.mirror:
        seed_step(config.run.seed, 1, 0)
        rows.append(("mirror", _shares(mirrored(pixels))))
    off = AugmentationConfig(crop=told.crop, mirror=False)
    for field in fields(told):
        name = field.name
        if name in _OTHERS:
            continue
        value = getattr(told, name) or USUAL[name]
        alone: dict[str, Any] = {name: value, "rand_augment_operations": told.rand_augment_operations}
        used = "" if getattr(told, name) else ", not in this run"
        title = f"{name.replace('_', '-')}{'' if value is True else f' {value:g}'}{used}"
        rows.append((title, _augmented(replace(off, **alone), pixels, config)))
    return _drawn(rows)


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """As a PNG, or what else the file's name says.

    Raises:
        OSError: it can't be written.
        ValueError: the name has no ending that stands for a format.
    """
    sheet.save(path)


def _augmented(told: AugmentationConfig, pixels: Tensor, config: RunConfig) -> Tensor:
    """As the first step of the run would draw it."""
    seed_step(config.run.seed, 1, 0)
    images = _shares(mirrored(pixels) if told.mirror else pixels)
    for operation in operations(told):
        images = operation(images)
    if told.mixup or told.cutmix:
        mix = Mix(told.mixup, told.cutmix, classes=2)
        images, _ = mix(images, torch.zeros(len(images), dtype=torch.int64))
    return images


def _shares(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def _drawn(rows: list[tuple[str, Tensor]]) -> Image.Image:
    count, _, height, width = rows[0][1].shape
    # Small pictures are enlarged, so that one sees something.
    scale = max(1, 96 // max(height, width))
    across = width * scale + _MARGIN
    font = _title_font([title for title, _ in rows], count * across - _MARGIN)
    title_height = round(1.4 * font.size)
    down = height * scale + _MARGIN + title_height
    sheet = Image.new("RGB", (count * across + _MARGIN, len(rows) * down + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (title, images) in enumerate(rows):
        top = row * down
        draw.text((_MARGIN, top + title_height), title, fill="black", font=font, anchor="ld")
        shown = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for column, picture in enumerate(np.asarray(shown)):
            tile = Image.fromarray(picture).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(tile, (_MARGIN + column * across, top + title_height))
    return sheet


def _title_font(titles: list[str], width: int) -> ImageFont.FreeTypeFont:
    """To be read when the sheet is seen whole; smaller where the longest title wouldn't fit."""
    size = min(max(_LEAST_TITLE, width * _TITLE_SHARE), _LARGEST_TITLE)
    font = _font(size)
    while max(font.getlength(title) for title in titles) > width:
        size *= 0.95
        font = _font(size)
    return font


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - for the type checker; with a size it is one
    return font
