"""The perceptual hash, against the hashes that ImageHash 4.3.2 gives, and what it forgives."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.cli.quality.near_pairs import Groups, near_pairs
from service.cli.quality.perceptual_hash import look, perceptual_hash, signs
from service.errors import InvalidImage
from tests.client.pictures import BROKEN


def scene(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Soft blobs of colour."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, 0xFC9848E313C4AE3B),
        (1, 0x8CE3D8B83ACBC534),
        (2, 0xFC6C8D47DB2420DA),
        (3, 0xDD79E29CD5EE0011),
        (4, 0x9141A6A6C2857F7B),
        (5, 0xCE62F0FED33A00C5),
    ],
)
def test_as_imagehash_computes_it(seed: int, expected: int) -> None:
    assert perceptual_hash(scene(seed)) == expected


def test_it_forgives_sizes_compression_and_light_but_not_another_picture() -> None:
    picture = scene(0, (400, 300))
    own = perceptual_hash(picture)
    compressed = io.BytesIO()
    picture.save(compressed, "JPEG", quality=30)
    for altered in (
        picture.resize((123, 77)),
        Image.open(compressed),
        picture.point(lambda value: min(255, round(value * 1.15))),
    ):
        assert distance(own, perceptual_hash(altered)) <= 6
    others = [distance(own, perceptual_hash(scene(seed))) for seed in range(1, 50)]
    assert min(others) > 12
    assert np.mean(others) == pytest.approx(32, abs=3)


def test_plain_pictures_have_one_hash() -> None:
    hashes = {
        perceptual_hash(Image.new("RGB", (50, 40), (level, 20, 255 - level))) for level in range(0, 255, 5)
    }
    assert len(hashes) == 1


def test_a_look_at_a_file(tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    scene(2, (2000, 1500)).save(file, quality=90)
    seen = look(file)
    assert (seen.width, seen.height, seen.size_bytes) == (2000, 1500, file.stat().st_size)
    assert distance(seen.bits, perceptual_hash(scene(2))) <= 4
    file.write_bytes(BROKEN)
    with pytest.raises(InvalidImage):
        look(file)


def test_every_near_pair_is_found_once() -> None:
    random = np.random.default_rng(1)
    hashes = [int(value) for value in random.integers(0, 2**64, 4300, np.uint64)]
    for number in range(4200, 4300):  # near another one, in other blocks too
        hashes[number] = hashes[number - 4200] ^ sum(
            1 << int(bit) for bit in random.choice(64, number % 14, False)
        )
    found = np.concatenate(list(near_pairs(signs(hashes), 10)))
    expected = {
        (number - 4200, number)
        for number in range(4200, 4300)
        if distance(hashes[number - 4200], hashes[number]) <= 10
    }
    assert len(found) == len(expected)
    assert set(map(tuple, found.tolist())) == expected
    # All the same: every pair.
    same = np.concatenate(list(near_pairs(signs([7] * 2100), 0)))
    assert len(same) == 2100 * 2099 // 2


def test_groups() -> None:
    forest = Groups(7)
    for one, other in ((5, 1), (2, 3), (1, 2), (3, 5), (0, 6)):
        forest.join(one, other)
    assert forest.several() == [[1, 2, 3, 5], [0, 6]]
    assert Groups(3).several() == []
