"""What whole batches go through on the device."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training import augment_policies
from training.augment import Augmentation, mirrored, operations
from training.augment_lighting import Lighting
from training.augment_mix import Mix
from training.augment_policies import rand_augment, trivial_augment
from training.augment_sheet import USUAL
from training.augment_warp import affine, elastic
from training.config import AugmentationConfig
from training.normalization import Normalization
from training.seeds import seed_step

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OFF = AugmentationConfig(crop="none", mirror=False)


def photo(size: int = 32) -> Tensor:
    """Float32 [1, 3, size, size] from 0 to 1: smooth, unlike in all directions."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    return torch.stack([x, y, (x * y + 0.3 * torch.sin(9 * x))]).clamp(0, 1)[None]


def pixels(count: int = 16, size: int = 32) -> Tensor:
    """Uint8 [count, size, size, 3]: the same photo, and by turns its negative."""
    image = (photo(size)[0].permute(1, 2, 0) * 255).byte()
    return torch.stack([image, 255 - image]).repeat(count // 2, 1, 1, 1)


def augmented(config: AugmentationConfig, seed: int = 0, classes: int = 4) -> tuple[Tensor, Tensor]:
    seed_step(seed, 1, 0)
    augmentation = Augmentation(config, Normalization(MEAN, STD), classes)
    images, targets = augmentation(pixels(), torch.arange(16) % classes)
    return images, targets


def plain() -> Tensor:
    images: Tensor = Normalization(MEAN, STD)(pixels())
    return images


def test_nothing_is_only_normalisation() -> None:
    images, targets = augmented(OFF)
    assert torch.equal(images, plain())
    assert torch.equal(targets, torch.arange(16) % 4)


@pytest.mark.parametrize("name", [field.name for field in fields(OFF) if field.name in USUAL] + ["mirror"])
def test_each_changes_pictures_and_is_the_same_again_from_the_same_seed(name: str) -> None:
    config = replace(OFF, **{name: USUAL.get(name, True)})
    images, targets = augmented(config)
    assert images.shape == (16, 3, 32, 32)
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()
    assert not torch.allclose(images, plain(), atol=1e-3)
    again, other = augmented(config), augmented(config, seed=1)
    assert torch.equal(images, again[0])
    assert torch.equal(targets, again[1])
    assert not torch.equal(images, other[0])
    # Still from 0 to 1 before normalisation.
    shares = images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert shares.min() > -1e-3
    assert shares.max() < 1 + 1e-3


def test_what_is_drawn_does_not_depend_on_what_was_drawn_before() -> None:
    told: dict[str, Any] = USUAL | {"trivial_augment": False}
    first, _ = augmented(replace(OFF, **told))
    torch.rand(1000)
    np.random.default_rng().random(10)
    assert torch.equal(first, augmented(replace(OFF, **told))[0])


def test_half_are_mirrored_left_to_right() -> None:
    seed_step(0, 1, 0)
    images = mirrored(pixels(400, 8))
    flipped = (images == pixels(400, 8).flip(2)).flatten(1).all(1)
    same = (images == pixels(400, 8)).flatten(1).all(1)
    assert (flipped ^ same).all()
    assert 150 < int(flipped.sum()) < 250


@pytest.mark.parametrize("alone", ["shift", "rotation", "shear", "zoom"])
def test_warps_stay_within_their_strength(alone: str) -> None:
    # A picture of its own coordinates shows where each place came from.
    y, x = torch.meshgrid(torch.linspace(-1, 1, 65), torch.linspace(-1, 1, 65), indexing="ij")
    maps = torch.stack([x, y, torch.zeros_like(x)])[None].repeat(64, 1, 1, 1)
    strength = {"shift": 0.1, "rotation": 30.0, "shear": 20.0, "zoom": 0.3}
    torch.manual_seed(0)
    warped = affine(*(value if name == alone else 0.0 for name, value in strength.items()))(maps)
    centre = slice(24, 41)
    moved = warped[:, :2, centre, centre]
    across = (moved[:, :, :, -1] - moved[:, :, :, 0]).mean(-1) / (16 / 32)  # [64, 2]: the image of (1, 0)
    if alone == "shift":
        offset = moved.mean((2, 3)).abs()
        # At most 0.1 of the side, which is 2 long here.
        assert 0.15 < float(offset.max()) <= 0.2 + 1e-2
    elif alone == "rotation":
        angles = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0])).abs()
        assert 20 < float(angles.max()) <= 30.5
    elif alone == "zoom":
        factors = 1 / across[:, 0]
        assert 0.69 < float(factors.min()) < 0.8
        assert 1.2 < float(factors.max()) < 1.31
    else:
        down = (moved[:, :, -1, :] - moved[:, :, 0, :]).mean(-1) / (16 / 32)
        slopes = torch.rad2deg(torch.atan2(down[:, 0], down[:, 1])).abs()
        assert 10 < float(slopes.max()) < 25


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("strength", [0.01, 0.03])
def test_elastic_moves_points_by_that_share_of_the_side(size: int, strength: float) -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    torch.manual_seed(0)
    maps = torch.stack([x, y, x])[None].repeat(16, 1, 1, 1)
    inner = slice(size // 4, -size // 4)
    moved = (elastic(strength)(maps) - maps)[:, :2, inner, inner]
    assert float(moved.square().mean().sqrt()) == pytest.approx(strength, rel=0.3)


def test_lighting_shifts_all_pixels_alike_along_the_axes() -> None:
    torch.manual_seed(0)
    grey = torch.full((2000, 3, 4, 4), 0.5)
    shifts = Lighting(0.1)(grey) - grey
    assert torch.allclose(shifts, shifts[:, :, :1, :1].expand_as(shifts))
    covariance = torch.cov(shifts[:, :, 0, 0].T)
    values, vectors = torch.linalg.eigh(covariance.double())
    # The largest is brightness: 0.1 of ImageNet's 0.2175, much the same in all channels.
    assert float(values[-1].sqrt()) == pytest.approx(0.02175, rel=0.1)
    assert vectors[:, -1].abs().tolist() == pytest.approx([0.5675, 0.5808, 0.5836], abs=0.02)


def test_erasing_hits_with_its_probability() -> None:
    torch.manual_seed(0)
    (erase,) = operations(replace(OFF, erasing=0.25))
    white = torch.ones(400, 3, 16, 16)
    areas = (erase(white) < 0.9)[:, 0].float().mean((1, 2))
    hit = areas > 0
    assert 70 < int(hit.sum()) < 130
    assert float(areas[hit].min()) > 0.01
    assert float(areas.max()) < 0.45


@pytest.mark.parametrize("magnitude", [1, 9, 29])
def test_rand_augment_does_more_the_larger_its_magnitude(magnitude: int) -> None:
    torch.manual_seed(0)
    images = photo().repeat(64, 1, 1, 1)
    change = float((rand_augment(magnitude, 1)(images) - images).abs().mean())
    low, high = {1: (0.0, 0.06), 9: (0.02, 0.12), 29: (0.06, 0.3)}[magnitude]
    assert low < change < high


def test_rand_augment_lets_colours_fall_as_well_as_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_policies, "_RAND_AUGMENT", [("brightness", 1.0, 1.5)])
    torch.manual_seed(0)
    changes = (rand_augment(15, 1)(torch.full((200, 3, 8, 8), 0.5)) - 0.5).mean((1, 2, 3))
    assert changes.abs().tolist() == pytest.approx([0.25] * 200, abs=1e-3)
    assert 70 < int((changes < 0).sum()) < 130


def test_trivial_augment_leaves_one_in_fourteen_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_policies, "_GROUPS", 700)
    monkeypatch.setattr(augment_policies, "_TRIVIAL_AUGMENT", [("solarize", 0.0, 0.4)] * 13)
    torch.manual_seed(0)
    images = torch.full((700, 3, 2, 2), 0.7)
    same = (trivial_augment()(images) == images).flatten(1).all(1)
    assert 25 < int(same.sum()) < 85  # 50 are expected


def test_trivial_augment_draws_other_operations_for_other_parts_of_the_batch() -> None:
    torch.manual_seed(0)
    images = photo().repeat(64, 1, 1, 1)
    changed = trivial_augment()(images)
    means = changed.view(8, 8, 3, 32, 32).mean((1, 3, 4))
    assert len({tuple(round(value, 3) for value in row) for row in means.tolist()}) >= 5


def test_mixup_blends_neighbours_and_their_labels_alike() -> None:
    torch.manual_seed(1)
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 2, 2)[:, :3]  # picture i is bright in channel i
    mixed, targets = Mix(0.4, 0.0, 4)(images, torch.arange(4))
    share = float(targets[0, 0])
    assert 0 < share < 1
    for i in range(4):
        expected = torch.zeros(4)
        expected[i], expected[(i - 1) % 4] = share, 1 - share
        assert torch.allclose(targets[i], expected, atol=1e-6)
        assert torch.allclose(mixed[i, :, 0, 0], expected[:3], atol=1e-6)


def test_cutmix_gives_labels_the_shares_of_their_area() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[1] = 1.0
    kept = []
    for seed in range(30):
        torch.manual_seed(seed)
        mixed, targets = Mix(0.0, 1.0, 2)(images, torch.tensor([0, 1]))
        area = float(1 - mixed[0].mean())
        assert targets[0].tolist() == pytest.approx([area, 1 - area], abs=1e-5)
        assert targets[1].tolist() == pytest.approx([1 - area, area], abs=1e-5)
        assert set(mixed.unique().tolist()) <= {0.0, 1.0}
        kept.append(area)
    assert min(kept) < 0.4
    assert max(kept) > 0.9


def test_mixing_takes_several_labels_too() -> None:
    torch.manual_seed(0)
    several = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    _, targets = Mix(1.0, 0.0, 3)(torch.rand(2, 3, 4, 4), several)
    share = float(targets[0, 0])
    assert targets.tolist() == [pytest.approx([share, share, 0]), pytest.approx([1 - share, 1 - share, 0])]
