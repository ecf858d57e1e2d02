"""The decoding stage, with its real threads; each piece of work waits until the test lets it go on."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from service.decoding import DecodingStage
from service.errors import DeadlineExpired, InferenceFailed, InvalidImage, Unavailable
from service.group import Entry, Group, Priority

TIMEOUT_S = 30.0
IN_TIME_S = 60.0


def group(size: int = 1, seconds: float = IN_TIME_S, priority: Priority = Priority.INTERACTIVE) -> Group[Any]:
    return Group(size, asyncio.get_running_loop().time() + seconds, priority)


def pass_on(entry: Entry, pixels: Any) -> None:
    entry.group.set(entry.index, pixels)


class Stage:
    """A stage of one thread that is held up by its first piece of work until `go_on`."""

    def __init__(self) -> None:
        self.stage = DecodingStage(threads=1)
        self.decoded: list[str] = []
        self._started, self._go_on = threading.Event(), threading.Event()
        self._first = group()
        self.stage.put(Entry(self._first, 0), self._hold, pass_on)

    def _hold(self) -> None:
        self._started.set()
        assert self._go_on.wait(TIMEOUT_S)

    async def until_held(self) -> None:
        assert await asyncio.to_thread(self._started.wait, TIMEOUT_S)

    def put(self, name: str, of: Group[Any], decode: Callable[[], Any] | None = None) -> None:
        def work() -> Any:
            self.decoded.append(name)
            return decode() if decode else name

        self.stage.put(Entry(of, 0), work, pass_on)

    async def go_on(self) -> None:
        self._go_on.set()
        await self._first.wait()

    def close(self) -> None:
        self._go_on.set()
        assert self.stage.close(TIMEOUT_S)


async def test_the_most_urgent_is_decoded_first_whenever_it_came() -> None:
    stage = Stage()
    await stage.until_held()
    ahead = group()
    stage.put("looked ahead", ahead)  # so that the thread never waits for the event loop
    waiting = {
        "bulk": group(seconds=10, priority=Priority.BULK),
        "late": group(seconds=50),
        "soon": group(seconds=20),
        "sooner": group(seconds=15),
    }
    for name, each in waiting.items():
        stage.put(name, each)
    await stage.go_on()
    assert [await each.wait() for each in (ahead, *waiting.values())] == [
        [name] for name in ("looked ahead", *waiting)
    ]
    assert stage.decoded == ["looked ahead", "sooner", "soon", "late", "bulk"]
    stage.close()


async def test_at_most_one_more_than_the_threads_is_out_of_order() -> None:
    stage = Stage()
    await stage.until_held()
    late = [group(seconds=50) for _ in range(5)]
    for number, each in enumerate(late):
        stage.put(f"late {number}", each)
    urgent = group(seconds=10)
    stage.put("urgent", urgent)
    await stage.go_on()
    for each in (*late, urgent):
        await each.wait()
    assert stage.decoded == ["late 0", "urgent", "late 1", "late 2", "late 3", "late 4"]
    stage.close()


async def test_those_who_left_are_not_decoded_not_even_the_one_looked_ahead() -> None:
    stage = Stage()
    await stage.until_held()
    groups = [group() for _ in range(4)]
    for number, each in enumerate(groups):
        stage.put(str(number), each)
    groups[0].leave()
    groups[2].leave()
    await stage.go_on()
    assert [await groups[1].wait(), await groups[3].wait()] == [["1"], ["3"]]
    assert stage.decoded == ["1", "3"]
    stage.close()


async def test_what_is_late_already_is_not_decoded() -> None:
    stage = Stage()
    await stage.until_held()
    await stage.go_on()
    late, fine = group(seconds=-1), group()
    stage.put("late", late)
    stage.put("fine", fine)
    assert await fine.wait() == ["fine"]
    with pytest.raises(DeadlineExpired, match="before the image was decoded"):
        late.results()
    assert stage.decoded == ["fine"]
    stage.close()


async def test_what_a_caller_who_left_meanwhile_had_decoded_goes_nowhere() -> None:
    stage = Stage()
    await stage.until_held()
    passed_on: list[Any] = []
    leaves = group()
    decoding, go_on = threading.Event(), threading.Event()

    def decode() -> str:
        decoding.set()
        assert go_on.wait(TIMEOUT_S)
        return "pixels"

    stage.stage.put(Entry(leaves, 0), decode, lambda _, pixels: passed_on.append(pixels))
    await stage.go_on()
    assert await asyncio.to_thread(decoding.wait, TIMEOUT_S)
    leaves.leave()
    go_on.set()
    after = group()
    stage.put("after", after)
    assert await after.wait() == ["after"]
    assert passed_on == []
    stage.close()


async def test_a_bad_image_ends_with_its_own_error_and_its_neighbours_with_their_pixels() -> None:
    stage = DecodingStage(threads=2)

    def refuse() -> None:
        raise InvalidImage("not a JPEG")

    def crash() -> None:
        raise ZeroDivisionError("the decoder's own fault")

    request = group(size=4)
    for index, decode in enumerate((lambda: "first", refuse, crash, lambda: "last")):
        stage.put(Entry(request, index), decode, pass_on)
    first, bad, crashed, last = await request.wait()
    assert (first, last) == ("first", "last")
    assert isinstance(bad, InvalidImage)
    assert str(bad) == "not a JPEG"
    assert isinstance(crashed, InferenceFailed)
    assert str(crashed) == "the server failed to decode the image: ZeroDivisionError"
    assert stage.close(TIMEOUT_S)


@pytest.mark.parametrize("error", [Unavailable("draining"), RuntimeError("a bug")])
async def test_what_fails_after_decoding_ends_the_image_too(error: Exception) -> None:
    stage = DecodingStage(threads=1)

    def fail(entry: Entry, pixels: Any) -> None:
        raise error

    broken, fine = group(), group()
    stage.put(Entry(broken, 0), lambda: "pixels", fail)
    stage.put(Entry(fine, 0), lambda: "pixels", pass_on)
    assert isinstance((await broken.wait())[0], Unavailable | InferenceFailed)
    assert await fine.wait() == ["pixels"]
    assert stage.close(TIMEOUT_S)


async def test_everything_is_decoded_by_all_threads() -> None:
    stage = DecodingStage(threads=2)
    meeting = threading.Barrier(2)  # passes only where two threads are at it

    def meet() -> str:
        meeting.wait(TIMEOUT_S)
        return "met"

    both = group(size=2)
    for index in range(2):
        stage.put(Entry(both, index), meet, pass_on)
    assert await both.wait() == ["met", "met"]
    many = group(size=200)
    for index in range(200):
        stage.put(Entry(many, index), lambda index=index: index * index, pass_on)  # type: ignore[misc] # bound early
    assert await many.wait() == [index * index for index in range(200)]
    assert stage.close(TIMEOUT_S)
