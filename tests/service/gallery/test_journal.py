"""What is noted while a collection is being built anew."""

import pytest

from service.errors import Overloaded
from service.gallery import journal as module
from service.gallery.journal import Journal
from service.retrieval.filters import Equals

CATS = Equals("label", "cat")


def test_what_is_not_read_yet_is_not_noted() -> None:
    journal = Journal()
    journal.read_up_to("m")
    journal.note(["a", "m", "n", "z"])
    assert len(journal) == 2
    assert journal.take() == ([], ["a", "m"])
    assert journal.take() == ([], [])


def test_while_a_page_is_read_all_is_noted_and_what_lies_behind_it_is_left() -> None:
    journal = Journal()
    journal.reading()
    journal.note(["z", "a", "n", "a"])
    journal.read_up_to("n")
    # Done now, z would outlive a deletion that isn't noted: it lies behind what was read.
    journal.note(["z"])
    assert journal.take() == ([], ["a", "n"])
    journal.reading()
    journal.note(["z"])
    assert journal.take() == ([], ["z"])  # everything has been read: the page was empty


def test_after_a_deletion_by_filter_all_is_noted() -> None:
    journal = Journal()
    journal.read_up_to("m")
    journal.note([], CATS)
    journal.note(["a", "n"])
    journal.read_up_to("z")
    assert journal.take() == ([CATS], ["a", "n"])


def test_it_says_when_it_was_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDS", 3)
    monkeypatch.setattr(module, "MAX_FILTERS", 2)
    journal = Journal()
    journal.note(["a", "b", "c"])
    assert journal.take() == ([], ["a", "b", "c"])
    journal.note(["a", "b", "c", "d"])
    journal.note(["e"])
    for _ in range(2):
        with pytest.raises(Overloaded, match="more than 3 items or 2 filters"):
            journal.take()
    other = Journal()
    for _ in range(3):
        other.note([], CATS)
    with pytest.raises(Overloaded):
        other.take()
