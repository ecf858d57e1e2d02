"""Who is served next."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.entry_queue import BULK_SHARE, EntryQueue
from service.group import Entry, Group, Priority
from tests.fake_clock import run
from tests.service.fake_batching import FOREVER


def entry(deadline: float = FOREVER, priority: Priority = Priority.INTERACTIVE) -> Entry:
    return Entry(Group(1, deadline, priority), 0, "value")


def bulk(deadline: float = FOREVER) -> Entry:
    return entry(deadline, Priority.BULK)


def filled(*entries: Entry) -> EntryQueue:
    queue = EntryQueue()
    for each in entries:
        queue.push(each)
    return queue


def test_the_earliest_deadline_comes_first_and_of_equal_ones_the_first() -> None:
    async def main() -> None:
        entries = [entry(deadline) for deadline in (3.0, 1.0, 2.0, 1.0)]
        queue = filled(*entries)
        assert queue.earliest_deadline() == 1.0
        assert queue.take(3) == [entries[1], entries[3], entries[2]]
        assert len(queue) == 1
        assert queue.take(3) == [entries[0]]
        assert queue.take(3) == []
        assert queue.earliest_deadline() == float("inf")

    run(main())


def test_interactive_comes_before_bulk_and_bulk_fills_what_is_left() -> None:
    async def main() -> None:
        late, soon, work = entry(9.0), entry(5.0), bulk(1.0)
        queue = filled(work, late, soon)
        assert queue.earliest_deadline() == 1.0
        assert queue.take(3) == [soon, late, work]

    run(main())


@pytest.mark.parametrize("limit", [1, 3, 8, 64])
def test_bulk_gets_its_share_exactly_while_both_wait(limit: int) -> None:
    async def main() -> None:
        takes = 200
        queue = filled(*[entry() for _ in range(takes * limit)], *[bulk() for _ in range(takes * limit)])
        taken = [each.group.priority for _ in range(takes) for each in queue.take(limit)]
        assert len(taken) == takes * limit
        assert taken.count(Priority.BULK) == int(BULK_SHARE * takes * limit)

    run(main())


def test_few_bulk_entries_save_up_no_share_for_many() -> None:
    async def main() -> None:
        queue = filled(*[entry() for _ in range(2000)])
        for _ in range(10):  # one at a time: it always gets a place, and needs no more
            queue.push(bulk())
            queue.take(64)
        for _ in range(500):
            queue.push(bulk())
        assert sum(each.group.priority is Priority.BULK for each in queue.take(64)) <= 7

    run(main())


def test_without_bulk_work_nothing_is_reserved() -> None:
    async def main() -> None:
        queue = filled(*[entry() for _ in range(20)])
        assert [len(queue.take(8)) for _ in range(4)] == [8, 8, 4, 0]

    run(main())


def test_one_who_leaves_is_not_given_out_and_lets_go_of_its_value() -> None:
    async def main() -> None:
        class Pixels:
            pass

        leaves, stays = entry(1.0), entry(2.0)
        leaves.value = Pixels()
        pixels = weakref.ref(leaves.value)
        queue = filled(leaves, stays)
        leaves.group.leave()
        gc.collect()
        assert pixels() is None
        assert len(queue) == 1
        assert list(queue) == [stays]
        assert queue.earliest_deadline() == 2.0
        assert queue.take(2) == [stays]

    run(main())


def test_places_of_those_who_left_are_cleared_up() -> None:
    async def main() -> None:
        entries = [entry(float(number)) for number in range(1, 1001)]
        queue = filled(*entries)
        for each in entries[:-1]:
            each.group.leave()
        assert len(queue._heaps[Priority.INTERACTIVE]) <= 64
        assert queue.take(5) == entries[-1:]

    run(main())


Step = tuple[str, int, bool]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["push", "leave", "take"]), st.integers(1, 20), st.booleans()), max_size=150
    )
)
def test_every_entry_is_given_out_or_leaves_exactly_once_in_order(steps: list[Step]) -> None:
    async def main() -> None:
        queue = EntryQueue()
        waiting: list[Entry] = []
        for action, number, is_bulk in steps:
            if action == "push":
                waiting.append(entry(float(number), Priority(is_bulk)))
                queue.push(waiting[-1])
            elif action == "leave" and waiting:
                waiting.pop(number % len(waiting)).group.leave()
            elif action == "take":
                batch = queue.take(number)
                assert len(batch) == min(number, len(waiting))
                for priority in Priority:
                    of_it = [each for each in batch if each.group.priority is priority]
                    deadlines = [each.group.deadline for each in of_it]
                    assert deadlines == sorted(deadlines)
                    left = [each for each in waiting if each.group.priority is priority and each not in of_it]
                    assert not of_it or all(each.group.deadline >= deadlines[-1] for each in left)
                waiting = [each for each in waiting if each not in batch]
            assert len(queue) == len(waiting)
            assert set(queue) == set(waiting)
            assert queue.earliest_deadline() == min(
                (each.group.deadline for each in waiting), default=float("inf")
            )

    run(main())
