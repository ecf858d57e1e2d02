"""How late the event loop comes to what is due: what every call waits for, whatever it asks."""

import asyncio
import time
from collections.abc import Callable

TICK_S = 0.05
# Of one stall; after a machine's sleep there would be millions.
_MOST_MISSED = 1_000


async def watch_loop_lag(observe: Callable[[float], None], tick_s: float = TICK_S) -> None:
    """Observe the lag every `tick_s` seconds, until cancelled.

    While the loop stands still it can't look, though callers go on coming: the ticks that a stall swallowed
    are observed after it, each with what was left of the stall when it was due. So a stall counts by its
    length, as in HdrHistogram's correction for coordinated omission. Timers are up to a
    millisecond late on an idle machine.

    Args:
        observe: is given seconds.
        tick_s: between two observations.
    """
    due = time.monotonic() + tick_s
    while True:
        await asyncio.sleep(due - time.monotonic())
        lag_s = max(0.0, time.monotonic() - due)
        missed = min(int(lag_s / tick_s), _MOST_MISSED)
        for tick in range(missed + 1):
            observe(lag_s - tick * tick_s)
        due = time.monotonic() + tick_s
