"""Training and service see the same pixels, and the service says what PyTorch says, whoever asks and how."""

import io
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import fovea
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from service.image import decode_picture
from service.preprocess import Preprocessing, preprocess
from tests.packages import write_pixels
from tests.servers import ServerProcess
from training.export import export_package
from training.models import architecture
from training.transforms import EvalTransform

SPEC = Preprocessing(resize_short_side=256, crop_height=224, crop_width=224, interpolation="bilinear")
CUBIC = Preprocessing(resize_short_side=64, crop_height=64, crop_width=48, interpolation="bicubic")
SCALED = Preprocessing(64, 56, 60, "bilinear", jpeg_scaled_decode=True)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def made_images() -> dict[str, bytes]:
    """Pictures of many kinds and shapes."""
    generator = np.random.default_rng(5)
    base = Image.fromarray(generator.integers(0, 256, (300, 401, 3), np.uint8))
    rotated = Image.Exif()
    rotated[0x0112] = 8

    def saved(picture: Image.Image, file_format: str, **options: object) -> bytes:
        file = io.BytesIO()
        picture.save(file, file_format, **options)
        return file.getvalue()

    return {
        "jpeg": saved(base, "JPEG", quality=80),
        "progressive": saved(base, "JPEG", progressive=True),
        "cmyk": saved(base.convert("CMYK"), "JPEG"),
        "gray": saved(base.convert("L"), "JPEG"),
        "rotated": saved(base, "JPEG", exif=rotated),
        "palette": saved(base.quantize(64), "PNG", transparency=bytes(range(64))),
        "16 bit": saved(Image.fromarray(generator.integers(0, 65536, (90, 70), np.uint16)), "PNG"),
        "webp": saved(base, "WEBP"),
        "tall": saved(base.resize((9, 3000)), "PNG"),
        "wide": saved(base.resize((3000, 9)), "PNG"),
        "tiny": saved(base.resize((1, 1)), "PNG"),
        "exact": saved(base.resize((224, 256)), "PNG"),
    }


def training_pixels(data: bytes, spec: Preprocessing) -> NDArray[np.uint8]:
    transform = EvalTransform(spec)
    picture = decode_picture(data, least_short_side=transform.least_short_side)
    return transform(picture, random.Random(0))


def assert_same_pixels(client: fovea.Client, model: str, spec: Preprocessing, files: list[bytes]) -> None:
    for data, seen in zip(
        files, client.classify_stream(files, model=model, include_logits=True), strict=True
    ):
        assert isinstance(seen, fovea.Classification), seen
        assert seen.logits is not None
        expected = training_pixels(data, spec)
        np.testing.assert_array_equal(seen.logits.reshape(expected.shape), expected)


@pytest.fixture(scope="module")
def pixels_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("pixels")
    write_pixels(folder / "models", SPEC, "square")
    write_pixels(folder / "models", CUBIC, "cubic")
    write_pixels(folder / "models", SCALED, "scaled")
    options = ("--max-message-bytes", str(64 * 1024 * 1024))
    with ServerProcess(folder / "models", folder / "index", *options) as process:
        yield process


@pytest.mark.parametrize(("model", "spec"), [("square", SPEC), ("cubic", CUBIC), ("scaled", SCALED)])
def test_the_network_gets_trainings_pixels_of_every_kind_of_image(
    pixels_server: ServerProcess, model: str, spec: Preprocessing
) -> None:
    with fovea.Client(pixels_server.address, max_message_bytes=64 * 1024 * 1024) as client:
        assert_same_pixels(client, model, spec, list(made_images().values()))


@pytest.mark.parametrize(("model", "spec"), [("square", SPEC), ("scaled", SCALED)])
def test_the_network_gets_trainings_pixels_of_photographs(
    pixels_server: ServerProcess, photos: list[Path], model: str, spec: Preprocessing
) -> None:
    with fovea.Client(pixels_server.address, max_message_bytes=64 * 1024 * 1024) as client:
        assert_same_pixels(client, model, spec, [photo.read_bytes() for photo in photos])


def test_scaled_decoding_is_other_pixels() -> None:
    data = made_images()["jpeg"]
    whole = training_pixels(data, replace(SCALED, jpeg_scaled_decode=False))
    assert not np.array_equal(training_pixels(data, SCALED), whole), "or the tests above would prove nothing"


@dataclass(frozen=True)
class Served:
    """A randomly initialised ResNet-50 in a server, and what PyTorch says of each photograph."""

    address: str
    files: list[bytes]
    logits: NDArray[np.float32]

    def assert_own(self, number: int, found: fovea.Classification | fovea.FoveaError) -> None:
        assert isinstance(found, fovea.Classification), found
        error = np.abs(found.logits - self.logits[number]).max() / np.abs(self.logits[number]).max()
        assert error <= 1e-4


@pytest.fixture(scope="module")
def resnet50(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("resnet50")
    torch.manual_seed(0)
    model = architecture("resnet50").build(1000).eval()
    files = [photo.read_bytes() for photo in photos]
    pixels = np.stack([preprocess(decode_picture(data), SPEC) for data in files])
    export_package(
        model,
        repository=folder / "models",
        name="resnet50",
        labels=[f"class {i}" for i in range(1000)],
        architecture="resnet50",
        preprocessing=SPEC,
        mean=MEAN,
        std=STD,
        images=pixels[:16],
    )
    with torch.inference_mode():
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        normalized = (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        logits = torch.cat([model(part) for part in torch.split(normalized, 8)]).numpy()
    with ServerProcess(folder / "models", folder / "index") as process:
        yield Served(process.address, files, logits)


def test_photographs_are_far_enough_apart_to_tell_whose_result_it_is(resnet50: Served) -> None:
    logits = resnet50.logits
    for number, own in enumerate(logits):
        others = np.delete(logits, number, axis=0)
        assert np.abs(others - own).max(axis=1).min() / np.abs(own).max() > 1e-3


def test_each_photograph_alone_gives_pytorchs_logits(resnet50: Served) -> None:
    with fovea.Client(resnet50.address) as client:
        for number, data in enumerate(resnet50.files):
            resnet50.assert_own(number, client.classify(data, include_logits=True))


def test_photographs_in_requests_of_any_size_and_order_give_pytorchs_logits(resnet50: Served) -> None:
    draw = random.Random(1)
    with fovea.Client(resnet50.address) as client:
        left = draw.sample(range(len(resnet50.files)), len(resnet50.files))
        while left:
            size = draw.randint(1, 20)
            part, left = left[:size], left[size:]
            found = client.classify_batch([resnet50.files[i] for i in part], include_logits=True)
            for number, result in zip(part, found, strict=True):
                resnet50.assert_own(number, result)


def test_64_callers_at_once_each_get_their_own_logits(resnet50: Served) -> None:
    def call(number: int) -> None:
        number %= len(resnet50.files)
        with fovea.Client(resnet50.address, timeout=120) as client:
            resnet50.assert_own(number, client.classify(resnet50.files[number], include_logits=True))

    with ThreadPoolExecutor(64) as pool:
        for done in [pool.submit(call, number) for number in range(64)]:
            done.result()
