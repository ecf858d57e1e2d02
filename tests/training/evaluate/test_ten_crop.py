"""Ten crops: which pixels they are, what their mean is, and that all three kinds of target take the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from service.preprocess import INTERPOLATIONS, Picture, Preprocessing, preprocess
from tests.packages import write_pixels
from tests.servers import ServerProcess
from tests.training.evaluate.known import Known, pictures
from tests.training.evaluate.test_targets import assert_same
from tests.training.noisy import NAMES, Noisy, write_noisy_folders
from tests.training.pictures import picture
from training.errors import TargetError
from training.evaluate.data import open_pictures, run_pictures
from training.evaluate.evaluation import evaluate
from training.evaluate.package import PackageTarget
from training.evaluate.predictions import gather
from training.evaluate.run import RunTarget
from training.evaluate.server import ServerTarget
from training.evaluate.target import Answer, Target
from training.evaluate.ten_crop import CROPS, TenCrop, mean_directions, mean_logits
from training.export import export_package
from training.models import architecture
from training.splits import Split

SPEC = Preprocessing(resize_short_side=10, crop_height=8, crop_width=6, interpolation="bicubic")


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = exponents / exponents.sum(axis=-1, keepdims=True)
    return shares


@pytest.mark.parametrize(("height", "width"), [(10, 10), (10, 17), (23, 10)])
def test_corners_and_centre_are_cut_and_each_is_mirrored(height: int, width: int) -> None:
    pixels = noise(height, width)
    crops = TenCrop(SPEC).crops(Picture.whole(Image.fromarray(pixels)))
    top, left = round((height - 8) / 2), round((width - 6) / 2)
    places = [(0, 0), (0, width - 6), (height - 8, 0), (height - 8, width - 6), (top, left)]
    five = [pixels[top : top + 8, left : left + 6] for top, left in places]
    assert crops.dtype == np.uint8
    assert np.array_equal(crops, [*five, *(crop[:, ::-1] for crop in five)])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_they_are_cut_from_the_resized_picture(interpolation: str) -> None:
    spec = Preprocessing(20, 16, 16, interpolation)
    image = Image.fromarray(noise(63, 41))
    resized = np.asarray(image.resize((20, 20 * 63 // 41), INTERPOLATIONS[interpolation])).astype(int)
    crops = TenCrop(spec).crops(Picture.whole(image))
    corners = [resized[:16, :16], resized[:16, -16:], resized[-16:, :16], resized[-16:, -16:]]
    # One resampling of a part may round a value in a few hundred otherwise than one of the whole.
    assert np.abs(crops[:4] - corners).max() <= 1
    assert np.array_equal(crops[4], preprocess(image, spec))


@pytest.mark.parametrize(
    ("resize", "height", "width", "expected"),
    [
        (256, 224, 224, 256),
        (224, 224, 224, 256),
        (32, 32, 32, 37),
        (2, 2, 2, 3),
        (1, 1, 1, 2),
        (225, 224, 224, 225),
        # A margin on two sides is one.
        (32, 32, 24, 32),
    ],
)
def test_where_there_is_no_margin_the_picture_is_resized_to_the_input_over_0_875(
    resize: int, height: int, width: int, expected: int
) -> None:
    own = Preprocessing(resize, height, width, "lanczos", jpeg_scaled_decode=True)
    ten = TenCrop(own)
    assert ten.spec == Preprocessing(expected, height, width, "lanczos", jpeg_scaled_decode=True)
    assert ten.document()["resize_short_side"] == expected
    assert ten.document()["model_resize_short_side"] == resize
    assert (f"the model itself resizes to {resize}" in str(ten)) == (expected != resize)
    assert f"the image with its short side at {expected}" in str(ten)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("resize", "height", "width"), [(256, 224, 224), (37, 32, 32), (8, 8, 8), (11, 8, 5), (10, 7, 10)]
)
def test_what_is_sent_to_a_server_reaches_its_network_unchanged(
    interpolation: str, resize: int, height: int, width: int
) -> None:
    spec = Preprocessing(resize, height, width, interpolation)
    crop = noise(height, width)
    assert np.array_equal(preprocess(TenCrop(spec).sent(crop), spec), crop)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])
def test_the_mean_is_that_of_the_probabilities(temperature: float) -> None:
    crops = (3 * np.random.default_rng(1).normal(size=(70, 5))).astype(np.float32)
    into = np.empty((7, 5), np.float32)
    single = mean_logits(crops, "single_label", temperature, into).astype(np.float64) / temperature
    scaled = crops.astype(np.float64).reshape(7, CROPS, 5) / temperature
    assert softmax(single) == pytest.approx(softmax(scaled).mean(axis=1), abs=1e-6)
    several = mean_logits(crops, "multi_label", temperature, into).astype(np.float64) / temperature
    expected = (1 / (1 + np.exp(-scaled))).mean(axis=1)
    assert 1 / (1 + np.exp(-several)) == pytest.approx(expected, abs=1e-6)
    # The mean of the logits is something else.
    assert np.abs(softmax(scaled.mean(axis=1)) - softmax(single)).max() > 0.02


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_what_is_as_good_as_certain_stays_finite(task: str) -> None:
    crops = np.tile(np.array([[3e4, -3e4, 0]], np.float32), (10, 1))
    mean = mean_logits(crops, task, 1.0, np.empty((1, 3), np.float32))
    assert np.isfinite(mean).all()
    assert mean.argmax() == 0


def test_of_embeddings_it_is_the_direction_of_the_mean() -> None:
    vectors = np.zeros((20, 2), np.float32)
    vectors[:5, 0] = vectors[5:10, 1] = 1
    vectors[10:15, 0], vectors[15:, 0] = 1, -1
    assert mean_directions(vectors) == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0, 0]]))


def test_one_crop_without_an_answer_leaves_its_picture_without() -> None:
    class Said(Known):
        preprocessing = SPEC

        def answers(self, split: Split, ten_crop: TenCrop | None = None) -> Iterator[Answer]:
            vector = np.array([1, 0], np.float32)
            for index in range(len(split)):
                if index == 1:
                    yield Answer(index, fault="broken")
                    continue
                for view in range(CROPS):
                    nan = index == 2 and view == 7
                    yield Answer(index, np.array([np.nan if nan else index, 1], np.float32), vector)

    target, truth, done = Said(("a", "b"), []), pictures(("a", "b"), [0, 0, 0, 1]), list[int]()
    found = gather(target, truth.split, done.append, target.ten_crop())
    assert sum(done) == 4
    assert found.indices.tolist() == [0, 3]
    assert [failure.index for failure in found.failures] == [1, 2]
    assert found.logits is not None
    assert softmax(found.logits.astype(np.float64)) == pytest.approx(
        softmax(np.array([[0.0, 1.0], [3.0, 1.0]])), abs=1e-6
    )
    assert found.embeddings.tolist() == [[1, 0], [1, 0]]


def test_a_target_that_does_not_say_how_it_resizes_is_refused() -> None:
    with pytest.raises(TargetError, match="known doesn't say how it resizes images"):
        evaluate(Known(("a",), []), pictures(("a",), [0]), ten_crop=True)


def test_the_temperature_is_that_of_each_crop(noisy: Noisy) -> None:
    target = PackageTarget(noisy.package)
    truth = run_pictures(noisy.run)
    found = evaluate(target, truth, ten_crop=True)
    assert target.temperature != 1
    ten = target.ten_crop()
    probabilities: dict[float, list[NDArray[np.float64]]] = {target.temperature: [], 1.0: []}
    of_centres = []
    for index in range(len(truth.split)):
        logits, _ = target.run(ten.crops(truth.split.picture(index)))
        assert logits is not None
        for temperature, means in probabilities.items():
            means.append(softmax(logits.astype(np.float64) / temperature).mean(axis=0))
        of_centres.append(softmax(logits[4].astype(np.float64)))
    assert np.abs(np.array(probabilities[1.0]) - of_centres).max() > 0.01, "or it would say little"
    own = truth.split.labels
    for temperature, name in ((target.temperature, "nll"), (1.0, "nll_before_temperature")):
        of_own = np.array(probabilities[temperature])[np.arange(len(own)), own]
        surprise = -np.log(of_own).mean()
        assert found.numbers[name] == pytest.approx(surprise, rel=1e-5)
    right = (np.array(probabilities[target.temperature]).argmax(axis=1) == own).mean()
    assert found.numbers["top1_accuracy"] == pytest.approx(right)
    assert found.document()["ten_crop"]["crops"] == 10
    assert evaluate(target, truth).document()["ten_crop"] is None


def test_all_three_say_the_same(noisy: Noisy, noisy_server: ServerProcess, tmp_path: Path) -> None:
    data = write_noisy_folders(tmp_path / "more", 6, seed=9)
    (data / NAMES[1] / "003.png").write_bytes(b"no image")
    Image.new("RGB", (200, 9), (30, 200, 40)).save(data / NAMES[0] / "wide.jpg")
    truth = open_pictures(str(data))
    with ServerTarget(noisy_server.address) as served:
        targets: list[Target] = [
            RunTarget(noisy.run, device="cpu", batch_size=25),
            PackageTarget(noisy.package, batch_size=4),
            served,
        ]
        run, package, server = (evaluate(target, truth, ten_crop=True) for target in targets)
    assert [failure["image"] for failure in run.document()["failures"]] == [f"{NAMES[1]}/003.png"]
    assert_same(run, package)
    assert_same(run, server)
    assert run.document()["ten_crop"] == package.document()["ten_crop"] == server.document()["ten_crop"]


@pytest.mark.parametrize(
    "spec",
    [
        Preprocessing(12, 8, 8, "bicubic"),
        Preprocessing(8, 8, 8, "bilinear"),
        Preprocessing(9, 8, 5, "lanczos"),
    ],
    ids=str,
)
def test_a_servers_network_sees_the_very_pixels(tmp_path: Path, spec: Preprocessing) -> None:
    write_pixels(tmp_path / "models", spec)
    images = [picture(label, label, 31, 18) for label in range(3)]
    images[1].save(tmp_path / "one.png")
    split = Split([tmp_path / "one.png", tmp_path / "gone.png"], np.array([0, 0]))
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as process,
        ServerTarget(process.address) as target,
    ):
        assert target.preprocessing == spec
        answers = list(target.answers(split, target.ten_crop()))
    assert [answer.index for answer in answers] == [0] * 10 + [1] * 10
    assert all(answer.fault == "No such file or directory" for answer in answers[10:])
    seen = [answer.logits for answer in answers[:10] if answer.logits is not None]
    expected = TenCrop(spec).crops(Picture.whole(images[1])).reshape(10, -1)
    assert np.array_equal(seen, expected)


def test_several_labels_and_none_have_their_means_too(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = architecture("resnet20-cifar").build(3).eval()
    common: dict[str, Any] = {
        "repository": tmp_path / "models", "architecture": "resnet20-cifar",
        # Without a margin.
        "preprocessing": Preprocessing(8, 8, 8), "mean": (0.4, 0.4, 0.4), "std": (0.3, 0.3, 0.3),
    }  # fmt: skip
    export_package(model, name="several", labels=NAMES, task="multi_label", temperature=0.25, **common)
    export_package(model, name="vectors", labels=(), task="embedding", **common)
    data = write_noisy_folders(tmp_path / "data", 4)
    truth = open_pictures(str(data))
    with ServerProcess(tmp_path / "models", tmp_path / "index") as process:
        for name in ("several", "vectors"):
            package = PackageTarget(tmp_path / "models" / name / "1")
            found = evaluate(package, truth, ten_crop=True)
            with ServerTarget(process.address, name) as served:
                assert_same(found, evaluate(served, truth, ten_crop=True))
            lengths = np.linalg.norm(found.predictions.embeddings, axis=1)
            assert lengths == pytest.approx(np.ones(12), rel=1e-5)
            if name == "several":
                logits, _ = package.run(TenCrop(common["preprocessing"]).crops(truth.split.picture(0)))
                assert logits is not None
                mean = (1 / (1 + np.exp(-logits.astype(np.float64) / 0.25))).mean(axis=0)
                assert found.predictions.logits is not None
                said = found.predictions.logits[0].astype(np.float64) / 0.25
                assert 1 / (1 + np.exp(-said)) == pytest.approx(mean, abs=1e-5)
