"""The policies of other servers, as small as they can honestly be: one instance, first come first served.

None predicts or knows a deadline; all refuse only where the queue is full. Decoding costs nothing here.
"""

from collections import deque
from collections.abc import Callable, Sequence

from benchmarks.simulation.scenario import QUEUE_CAPACITY, Machine, Outcome, Request

# (the instance is free at, arrival of the first, arrival of the one that fills the batch, window) → start
Start = Callable[[float, float, float, float], float]


def triton_like(machine: Machine, requests: Sequence[Request], seed: int) -> Outcome:
    """NVIDIA Triton's dynamic batcher: `preferred_batch_size` = the largest, `max_queue_delay_microseconds`.

    The window counts from the arrival of the oldest. Requests cancelled over gRPC are dropped when the
    batch is formed (Triton's request_cancellation.md, since 23.10).
    """
    return _serve(machine, requests, seed, _from_the_oldest, drops_who_left=True)


def mosec_like(machine: Machine, requests: Sequence[Request], seed: int) -> Outcome:
    """Mosec's `max_batch_size` and `max_wait_time`.

    A free worker takes the first and waits for others for the whole window, also if nobody comes. Work
    of callers who left is run.
    """
    return _serve(machine, requests, seed, _from_the_first_taken, drops_who_left=False)


def greedy(machine: Machine, requests: Sequence[Request], seed: int) -> Outcome:
    """text-embeddings-inference: a free backend takes what is there; `queue.rs` drops who left."""
    return _serve(machine, requests, seed, _at_once, drops_who_left=True)


def _from_the_oldest(free: float, first: float, full: float, window_s: float) -> float:
    return max(free, min(full, first + window_s))


def _from_the_first_taken(free: float, first: float, full: float, window_s: float) -> float:
    taken = max(free, first)
    return max(taken, min(full, taken + window_s))


def _at_once(free: float, first: float, _full: float, _window_s: float) -> float:
    return max(free, first)


def _serve(
    machine: Machine, requests: Sequence[Request], seed: int, start_of: Start, drops_who_left: bool
) -> Outcome:
    outcome, run_s = Outcome(len(requests)), machine.run_times(seed)
    queue: deque[Request] = deque()
    window_s = machine.max_queue_delay_ms / 1000
    free, coming = 0.0, 0
    while queue or coming < len(requests):
        if not queue:
            queue.append(requests[coming])
            coming += 1
        missing = machine.largest - len(queue)
        if missing <= 0:
            full = 0.0
        else:
            last = coming + missing - 1
            full = requests[last].arrival if last < len(requests) else float("inf")
        start = start_of(free, queue[0].arrival, full, window_s)
        while coming < len(requests) and requests[coming].arrival <= start:
            if len(queue) < QUEUE_CAPACITY:
                queue.append(requests[coming])
            else:
                outcome.refused += 1
            coming += 1
        batch: list[Request] = []
        while queue and len(batch) < machine.largest:
            request = queue.popleft()
            if not drops_who_left or request.deadline > start:
                batch.append(request)
        if not batch:
            continue
        free = start + run_s(len(batch))
        answered = [free - request.arrival for request in batch if free <= request.deadline]
        outcome.answered_s += answered
        outcome.wasted += len(batch) - len(answered)
    return outcome
