"""The budget is never overdrawn, and everybody gets a turn in the order of asking."""

import threading
from collections.abc import Callable

import pytest

from service.budget import Budget

PATIENCE_S = 5.0  # only for a test that fails


class Holder:
    """A thread that asks for an amount, and holds it until it is told to let go."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self.holds = threading.Event()
        self._let_go = threading.Event()
        self._budget, self._amount = budget, amount
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Holder":
        """Ask; returns when the asking is in the queue or served."""
        before = waiting(self._budget)
        self._thread.start()
        until(lambda: self.holds.is_set() or waiting(self._budget) > before)
        return self

    def _run(self) -> None:
        with self._budget.hold(self._amount):
            self.holds.set()
            self._let_go.wait(PATIENCE_S)

    def let_go(self) -> None:
        """Give back; returns when the thread has ended."""
        self._let_go.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def waiting(budget: Budget) -> int:
    with budget._changed:
        return len(budget._queue)


def until(condition: Callable[[], bool]) -> None:
    """Look again and again, leaving the others the interpreter in between."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S * 1000)):
        if condition():
            return
        pause.wait(0.001)
    pytest.fail("it never happened")


def test_what_fits_is_held_at_once() -> None:
    budget = Budget(10)
    with budget.hold(6), budget.hold(4), budget.hold(0):
        pass


def test_what_does_not_fit_waits() -> None:
    budget = Budget(10)
    first = Holder(budget, 6).start()
    second = Holder(budget, 5).start()
    assert first.holds.is_set()
    assert not second.holds.is_set()
    first.let_go()
    assert second.holds.wait(PATIENCE_S)
    second.let_go()


def test_a_small_amount_does_not_overtake() -> None:
    budget = Budget(10)
    first = Holder(budget, 6).start()
    large = Holder(budget, 9).start()
    small = Holder(budget, 1).start()
    assert waiting(budget) == 2, "the small one fits, but the large one asked before"
    first.let_go()
    assert large.holds.wait(PATIENCE_S)
    assert small.holds.wait(PATIENCE_S), "both fit now"
    large.let_go()
    small.let_go()


def test_more_than_the_total_is_held_alone() -> None:
    budget = Budget(10)
    small = Holder(budget, 1).start()
    huge = Holder(budget, 1000).start()
    after = Holder(budget, 1).start()
    assert waiting(budget) == 2
    small.let_go()
    assert huge.holds.wait(PATIENCE_S)
    assert not after.holds.is_set()
    huge.let_go()
    assert after.holds.wait(PATIENCE_S)
    after.let_go()


def test_order_is_that_of_asking() -> None:
    budget = Budget(1)
    first = Holder(budget, 1).start()
    others = [Holder(budget, 1).start() for _ in range(5)]
    first.let_go()
    for at, holder in enumerate(others):
        assert holder.holds.wait(PATIENCE_S)
        assert not any(later.holds.is_set() for later in others[at + 1 :])
        holder.let_go()


def test_an_error_gives_back() -> None:
    budget = Budget(10)
    with pytest.raises(KeyError), budget.hold(10):
        raise KeyError
    with budget.hold(10):
        pass


def test_who_is_interrupted_in_the_queue_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(10)
    holder = Holder(budget, 10).start()

    def interrupt(condition: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(budget._changed, "wait_for", interrupt)
        with pytest.raises(KeyboardInterrupt), budget.hold(5):
            pytest.fail("held")
    holder.let_go()
    with budget.hold(10):
        pass


def test_many_threads_never_hold_more_than_the_total() -> None:
    budget = Budget(100)
    lock = threading.Lock()
    held, most = 0, 0

    def work(amount: int) -> None:
        nonlocal held, most
        for _ in range(50):
            with budget.hold(amount):
                with lock:
                    held += amount
                    most = max(most, held)
                with lock:
                    held -= amount

    threads = [threading.Thread(target=work, args=(amount,), daemon=True) for amount in range(5, 85, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert held == 0
    assert 0 < most <= 100


@pytest.mark.parametrize("total", [0, -1])
def test_a_total_has_to_be_positive(total: int) -> None:
    with pytest.raises(ValueError, match=f"total is {total}; expected at least 1"):
        Budget(total)


def test_an_amount_can_not_be_negative() -> None:
    with pytest.raises(ValueError, match="amount is -1; expected at least 0"), Budget(1).hold(-1):
        pass
