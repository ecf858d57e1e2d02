"""`fovea classify`: photos and film clips."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from fovea import Classification, Client, FoveaError, InvalidImage

from service.cli.clip_files import check_pyav, is_clip
from service.cli.clip_mean import ClipAnswer, classify_clip
from service.cli.connection import connected, exit_status, json_option, model_options, server_options
from service.cli.loading import wait_for_model
from service.cli.output import print_json
from service.cli.photos import Failures, photos_argument

_MOST_FRAMES = 1000
Answer = Classification | ClipAnswer | FoveaError


@click.command()
@photos_argument
@model_options()
@click.option(
    "--top-k", type=click.IntRange(1), default=5, show_default=True, help="Classes per photo or clip."
)
@click.option(
    "--frames",
    type=click.IntRange(1, _MOST_FRAMES),
    default=16,
    show_default=True,
    help="Of a clip, evenly spread over its time; one with fewer has all of them looked at.",
)
@click.option("--each-frame", is_flag=True, help="Also each frame's time and best class.")
@json_option
@server_options
def classify(
    photos: tuple[str, ...],
    model: str | None,
    version: str | None,
    top_k: int,
    frames: int,
    each_frame: bool,
    as_json: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Name what is on photos and film clips, best class first.

    A clip (MP4, MOV, MKV, WebM, AVI …) has the mean of its frames' probabilities; reading it takes PyAV, of
    the extra fovea-serving[video]. What is a clip is told by a file's first bytes, else by its suffix.
    Animated GIF and WebP files are photos: their first picture counts.

    A file that can't be used is reported, the others are answered, and the exit status is 1.
    """
    clips = {photo for photo in photos if is_clip(Path(photo))}
    for clip in sorted(clips):
        check_pyav(Path(clip))

    def answers(client: Client) -> Iterator[Answer]:
        asked: dict[str, Any] = {"model": model, "version": version, "top_k": top_k}
        for are_clips, group in groupby(photos, clips.__contains__):
            if are_clips:
                yield from (_clip_answer(client, clip, frames, asked) for clip in group)
            else:
                yield from client.classify_stream(list(group), **asked)

    with connected(address, timeout_s) as client:
        wait_for_model(client, model, timeout_s)
        failures = Failures(client, model, as_json=as_json)
        for photo, answer in zip(photos, answers(client), strict=True):
            if isinstance(answer, FoveaError):
                failures.add(photo, answer)
            elif as_json:
                print_json({"photo": photo, **_described(answer, each_frame)})
            else:
                _print(photo, answer, each_frame)
            if isinstance(answer, ClipAnswer):
                for note in answer.notes:
                    click.secho(f"{photo}: {note}", fg="yellow", err=True)
        failures.close()
    exit_status(failures.count)


def _clip_answer(client: Client, clip: str, frames: int, asked: dict[str, Any]) -> ClipAnswer | FoveaError:
    try:
        return classify_clip(client, Path(clip), frames, **asked)
    except InvalidImage as error:
        return error


def _described(answer: Classification | ClipAnswer, each_frame: bool) -> dict[str, Any]:
    if isinstance(answer, ClipAnswer):
        fields = _described(answer.mean, each_frame) | {"frame_count": len(answer.frames)}
        return fields | ({"frames": [asdict(frame) for frame in answer.frames]} if each_frame else {})
    fields = asdict(answer)
    del fields["logits"]
    return fields


def _print(photo: str, answer: Classification | ClipAnswer, each_frame: bool) -> None:
    if isinstance(answer, Classification):
        click.secho(photo, bold=True)
        _print_classes(answer)
        return
    count = len(answer.frames)
    click.echo(f"{click.style(photo, bold=True)}: mean of {count} frame{'s' * (count != 1)}")
    _print_classes(answer.mean)
    for frame in answer.frames if each_frame else ():
        click.echo(f"  at {frame.time_s:8.2f} s  {frame.probability:6.1%}  {frame.label}")


def _print_classes(answer: Classification) -> None:
    for score in answer.classes:
        click.echo(f"  {score.probability:6.1%}  {score.label}")
