"""The frames that are taken of a clip, against a plain decoding of all of it."""

import itertools
import os
from pathlib import Path

import fovea
import numpy as np
import pytest

from service.cli import clips
from service.cli.clips import Clip
from tests.service.cli.clip_files import (
    HEIGHT,
    RATE,
    WIDTH,
    Pixels,
    av,
    every_frame,
    plain,
    shades,
    turn_clockwise,
    write_clip,
    write_sound,
)


def middles(frames: int, count: int) -> list[int]:
    """The frames of an even clip that are shown in the middle of each of `count` equal parts of it."""
    return [(2 * part + 1) * frames // (2 * count) for part in range(count)]


def same(found: list[clips.Frame], expected: list[Pixels]) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(frame.pixels, pixels) for frame, pixels in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "b_frames"), [("a.mp4", 0), ("a.mp4", 2), ("a.mkv", 2), ("a.avi", 0), ("a.ts", 0), ("a.mov", 2)]
)
@pytest.mark.parametrize(("frames", "count"), [(32, 16), (30, 7), (45, 1), (31, 30)])
def test_frames_are_spread_evenly(tmp_path: Path, name: str, b_frames: int, frames: int, count: int) -> None:
    path = write_clip(tmp_path / name, shades(frames), b_frames=b_frames)
    everything = every_frame(path)
    assert len(everything) == frames
    clip = Clip(path)
    found = list(clip.frames(count))
    wanted = middles(frames, count)
    assert same(found, [everything[number] for number in wanted])
    np.testing.assert_allclose([frame.time_s for frame in found], np.array(wanted) / RATE, atol=2e-3)
    assert [frame.moments for frame in found] == [1] * count
    assert clip.notes == []


@pytest.mark.parametrize(("frames", "count"), [(1, 16), (5, 16), (16, 16)])
def test_a_short_clip_gives_each_frame_once(tmp_path: Path, frames: int, count: int) -> None:
    path = write_clip(tmp_path / "a.mp4", shades(frames))
    clip = Clip(path)
    found = list(clip.frames(count))
    assert same(found, every_frame(path))
    assert [frame.moments for frame in found] == [1] * frames
    assert clip.notes == []


def test_frames_that_stand_longer_count_for_more(tmp_path: Path) -> None:
    """Twenty frames in a second, then one each two seconds."""
    times_ms = [*range(0, 1000, 50), *range(1000, 11000, 2000)]
    path = write_clip(tmp_path / "a.mp4", shades(len(times_ms)), times_ms=times_ms)
    count = 18
    found = list(Clip(path).frames(count))
    assert sum(frame.moments for frame in found) == count
    everything = every_frame(path)
    stands_s = dict(
        zip(times_ms, (later - earlier for earlier, later in itertools.pairwise(times_ms)), strict=False)
    )
    for frame in found:
        at = round(frame.time_s * 1000)
        assert np.array_equal(frame.pixels, everything[times_ms.index(at)])
        if at != times_ms[-1]:  # how long the last one stands is for the container to say
            # A part of the clip takes about half a second.
            assert abs(frame.moments - stands_s[at] / (times_ms[-1] / count)) <= 1.5
    assert len(found) < count


def test_only_what_leads_to_the_frames_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mkv", shades(120), gop=6)
    decoded = []

    def count(stream: object, packet: object) -> object:
        decoded.append(packet)
        return decode(stream, packet)  # type: ignore[arg-type] # as it came

    decode = clips._decode
    monkeypatch.setattr(clips, "_decode", count)
    found = list(Clip(path).frames(2))
    assert same(found, [every_frame(path)[number] for number in middles(120, 2)])
    # A stretch to each, and as many more as the decoder has threads.
    assert len(decoded) <= 2 * (6 + 2 + (os.cpu_count() or 1)) < 120


def test_a_phones_picture_is_turned_upright(tmp_path: Path) -> None:
    left_is_red = plain((20, 20, 200))
    left_is_red[:, : WIDTH // 2] = (200, 20, 20)
    path = write_clip(tmp_path / "a.mp4", [left_is_red] * 3)
    lying = every_frame(path)
    turn_clockwise(path)
    (first, *_) = Clip(path).frames(3)
    assert first.pixels.shape == (WIDTH, HEIGHT, 3)
    top, bottom = first.pixels[4].mean(axis=0), first.pixels[-5].mean(axis=0)
    assert top[0] > 150 > 60 > top[2]  # turned clockwise, the left side is on top
    assert bottom[2] > 150 > 60 > bottom[0]
    assert np.array_equal(first.pixels, np.rot90(lying[0], -1))


def test_colours_are_those_that_the_clip_says(tmp_path: Path) -> None:
    """BT.709, as high definition has it; taken for BT.601, green would be off by tens."""
    color = (30, 180, 60)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        frame = av.VideoFrame.from_ndarray(plain(color), format="rgb24").reformat(
            format="yuv444p", src_colorspace="ITU601", dst_colorspace="ITU709"
        )
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (found,) = Clip(path).frames(1)
    np.testing.assert_allclose(found.pixels.mean(axis=(0, 1)), color, atol=4)


def test_a_duration_is_not_needed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", shades(30), options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert same(list(Clip(path).frames(5)), [every_frame(path)[number] for number in middles(30, 5)])


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_of_a_file_that_is_cut_short_what_is_there_is_taken(tmp_path: Path, name: str) -> None:
    draw = np.random.default_rng(0)
    noisy = [draw.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8) for _ in range(30)]
    path = write_clip(
        tmp_path / name, noisy, gop=1, options={"movflags": "faststart"} if "mp4" in name else {}
    )
    everything = every_frame(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    clip = Clip(path)
    found = list(clip.frames(1000))
    assert 10 <= len(found) < 25
    whole = sum(
        np.array_equal(frame.pixels, pixels) for frame, pixels in zip(found, everything, strict=False)
    )
    assert whole >= len(found) - 1  # of the last one a part is missing
    if name == "a.mp4":
        assert "of its 30 frames are there" in clip.notes[0]


def test_broken_frames_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mkv", shades(8), gop=1)
    everything = every_frame(path)

    numbers = itertools.count(1)

    def refuse_third(stream: object, packet: object) -> object:
        return [] if next(numbers) == 3 else decode(stream, packet)  # type: ignore[arg-type] # as it came

    decode = clips._decode
    monkeypatch.setattr(clips, "_decode", refuse_third)
    clip = Clip(path)
    found = list(clip.frames(16))
    assert same(found, everything[:2] + everything[3:])
    assert clip.notes == ["7 of the 8 frames chosen could be decoded"]


def test_what_is_no_video_says_why(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"no video at all" * 100)
    with pytest.raises(fovea.InvalidImage, match=r"garbage\.mp4: not a video that can be read, or cut short"):
        Clip(garbage)
    with pytest.raises(fovea.InvalidImage, match=r"sound\.mkv: has no video; it has audio"):
        Clip(write_sound(tmp_path / "sound.mkv"))
    # Its index is at its end.
    cut = write_clip(tmp_path / "cut.mp4", shades(10))
    content = cut.read_bytes()
    cut.write_bytes(content[:-200])
    with pytest.raises(fovea.InvalidImage, match=r"cut\.mp4: not a video that can be used: it has no frames"):
        Clip(cut)
    cut.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(fovea.InvalidImage, match=r"cut\.mp4: not a video that can be read, or cut short"):
        Clip(cut)


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.ts", shades(4))
    playlist = tmp_path / "list.mp4"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(fovea.InvalidImage):
        Clip(playlist)
