"""`fovea classify clip.mp4` over loopback: the mean of what the server says of the clip's frames."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import fovea
import numpy as np
import pytest
from numpy.typing import NDArray

from service.cli import clip_mean, clips
from tests.packages import LABELS, write_colors, write_embedder
from tests.servers import ServerProcess
from tests.service.cli.clip_files import RATE, Pixels, every_frame, shades, write_clip
from tests.service.cli.conftest import Fovea

FRAMES = 24


@pytest.fixture
def clip(pictures: Path) -> Path:
    """Of 24 frames, clip.mp4 in the current folder, where pictures are too."""
    return write_clip(pictures / "clip.mp4", shades(FRAMES), b_frames=2)


def mean_of(address: str, frames: Sequence[Pixels]) -> NDArray[np.float64]:
    """Of the probabilities that single calls give, by class."""
    total = np.zeros(len(LABELS))
    with fovea.Client(address) as client:
        for frame in frames:
            for score in client.classify(frame, top_k=len(LABELS)).classes:
                total[score.index] += score.probability
    return total / len(frames)


def by_class(answer: dict[str, list[dict[str, float]]]) -> list[float]:
    found = {score["index"]: score["probability"] for score in answer["classes"]}
    return [found[index] for index in range(len(LABELS))]


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ((), [(2 * part + 1) * FRAMES // 32 for part in range(16)]),
        (("--frames", "6"), [2, 6, 10, 14, 18, 22]),
        (("--frames", "1"), [12]),
        (("--frames", "1000"), list(range(FRAMES))),
    ],
)
def test_a_clip_has_the_mean_of_its_frames(
    fovea_command: Fovea, server: ServerProcess, clip: Path, options: tuple[str, ...], taken: list[int]
) -> None:
    done = fovea_command("classify", "clip.mp4", "--json", "--each-frame", *options)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    everything = every_frame(clip)
    expected = mean_of(server.address, [everything[number] for number in taken])
    np.testing.assert_allclose(by_class(answer), expected, rtol=1e-6)
    assert expected.max() < 0.999  # the frames differ
    ranked = [score["probability"] for score in answer["classes"]]
    assert ranked == sorted(ranked, reverse=True)
    assert (answer["photo"], answer["model"], answer["version"]) == ("clip.mp4", "colors", "1")
    assert answer["frame_count"] == len(taken)
    np.testing.assert_allclose([frame["time_s"] for frame in answer["frames"]], np.array(taken) / RATE)
    np.testing.assert_allclose(sum(frame["share"] for frame in answer["frames"]), 1)
    with fovea.Client(server.address) as client:
        labels = [client.classify(everything[number]).label for number in taken]
    assert [frame["label"] for frame in answer["frames"]] == labels
    assert done.stderr == ""


def test_a_clip_among_photos_for_people(fovea_command: Fovea, clip: Path) -> None:
    done = fovea_command("classify", "red.png", clip.name, "green.png", "--top-k", "1", "--frames", "2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:3] == ["red.png", "  100.0%  red", "clip.mp4: mean of 2 frames"]
    assert lines[4:] == ["green.png", "  100.0%  green"]
    each = fovea_command("classify", clip.name, "--top-k", "1", "--frames", "2", "--each-frame")
    assert [line.split()[:3] for line in each.stdout.splitlines()[2:]] == [
        ["at", "0.60", "s"],
        ["at", "1.80", "s"],
    ]


def test_a_clip_that_cannot_be_used_fails_alone(fovea_command: Fovea, clip: Path) -> None:
    (clip.parent / "broken.mp4").write_bytes(clip.read_bytes()[:300])
    done = fovea_command("classify", "broken.mp4", clip.name, "--top-k", "1")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "clip.mp4: mean of 16 frames"
    assert done.stderr.startswith("broken.mp4: not a video that can be read, or cut short")
    described = fovea_command("classify", "broken.mp4", "--json")
    assert described.exit_code == 1
    assert json.loads(described.stdout)["error"]["code"] == "INVALID_ARGUMENT"


def test_what_is_missing_of_a_clip_is_said(fovea_command: Fovea, pictures: Path) -> None:
    path = write_clip(pictures / "cut.mp4", shades(30), gop=1, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-300])
    done = fovea_command("classify", "cut.mp4", "--frames", "1000")
    assert done.exit_code == 0, done.output
    assert "mean of" in done.stdout
    assert "cut.mp4: cut short: " in done.stderr


def test_frames_too_large_for_a_message_go_as_jpeg(
    fovea_command: Fovea, server: ServerProcess, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def remember(frame: clips.Frame) -> NDArray[np.uint8] | bytes:
        found = sendable(frame)
        assert isinstance(found, bytes)
        sent.append(found)
        return found

    sendable = clip_mean._sendable
    monkeypatch.setattr(clip_mean, "_MOST_RAW_BYTES", 1000)
    monkeypatch.setattr(clip_mean, "_sendable", remember)
    done = fovea_command("classify", clip.name, "--json", "--frames", "24")
    assert done.exit_code == 0, done.output
    assert all(file.startswith(b"\xff\xd8") for file in sent)
    expected = mean_of(server.address, every_frame(clip))
    np.testing.assert_allclose(by_class(json.loads(done.stdout)), expected, atol=0.02)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A multi-label model, and one without classes."""
    folder = tmp_path_factory.mktemp("others")
    write_colors(folder / "models", "several", task="multi_label")
    write_embedder(folder / "models")
    with ServerProcess(folder / "models", folder / "index", "--default-model", "several") as process:
        yield process


def test_labels_that_hold_together_are_averaged_each(
    fovea_command: Fovea, others: ServerProcess, clip: Path
) -> None:
    done = fovea_command("classify", clip.name, "--json", "--frames", "4", FOVEA_ADDRESS=others.address)
    assert done.exit_code == 0, done.output
    everything = every_frame(clip)
    expected = mean_of(others.address, [everything[number] for number in (3, 9, 15, 21)])
    np.testing.assert_allclose(by_class(json.loads(done.stdout)), expected, rtol=1e-6)
    assert expected.sum() > 1.5


def test_a_model_without_classes_says_so_once(
    fovea_command: Fovea, others: ServerProcess, clip: Path
) -> None:
    done = fovea_command(
        "classify", clip.name, clip.name, "--model", "embedder", FOVEA_ADDRESS=others.address
    )
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: model 'embedder' (version 1) has no classes")


def test_a_clip_with_nobody_there_is_one_line(fovea_command: Fovea, clip: Path) -> None:
    done = fovea_command("classify", clip.name, "--address", "127.0.0.1:1")
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: no Fovea server answers at 127.0.0.1:1; start one with `fovea serve`, or name another with "
        "--address\n"
    )


@pytest.mark.parametrize("frames", ["0", "1001", "-1"])
def test_frames_are_bounded(fovea_command: Fovea, clip: Path, frames: str) -> None:
    done = fovea_command("classify", clip.name, "--frames", frames)
    assert done.exit_code == 2
    assert "is not in the range 1<=x<=1000" in done.stderr
