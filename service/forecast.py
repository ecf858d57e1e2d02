"""When would a request be answered? The latency table, and the pace at which answers really come."""

from service.latency import LatencyTable

# How much the newest batch says about the pace: it follows a change within some ten batches.
_NEWEST_WEIGHT = 0.15
# One batch is believed to be so many times slower than what is known at most: the machine may have paused.
_MOST_SLOWER = 4.0
# A pace so slow that too few are let in to measure it again would be believed for ever. So, with each
# batch, what is known of more images than there are drifts to what these show: the table's, if nothing.
_DRIFT = 0.005


class Forecast:
    """Predicts waits from the images that are in, decoding ones included.

    The pace at which images leave a busy server is measured, not computed: where decoding and inference
    share the cores no formula of thread counts gives it. It is kept as a factor on the warm-up's
    L(b)/b, for each power of two of images that were in, since more of them make better batches.
    """

    def __init__(self, latency: LatencyTable, max_batch_size: int, instances: int) -> None:
        """Nothing measured yet: the table alone speaks."""
        self._latency, self._max_batch_size, self._instances = latency, max_batch_size, instances
        self._factors: list[float | None] = [None] * max_batch_size.bit_length()
        self._paces_s: dict[int, float] = {}  # asked since the last batch
        self._busy_since: float | None = None

    def ran(self, images: int, now: float, images_in: int) -> None:
        """A batch ended at `now` (loop time); `images_in` are still in, less those whose callers left."""
        occupancy = self._occupancy(images_in + images)
        place = occupancy.bit_length() - 1
        target, stale = 1.0, place
        if self._busy_since is not None:
            known = self._factors[place]
            factor = (now - self._busy_since) / images / self._table_pace_s(occupancy)
            factor = min(factor, _MOST_SLOWER * (known or 1.0))
            target = factor if known is None else known + _NEWEST_WEIGHT * (factor - known)
            self._factors[place], stale = target, place + 1
        for place in range(stale, len(self._factors)):
            if (known := self._factors[place]) is not None:
                self._factors[place] = known + _DRIFT * (target - known)
        self._paces_s = {}
        # With nothing left to do the time until the next batch says nothing about the pace.
        self._busy_since = now if images_in > 0 else None

    def wait_s(self, images_ahead: int, images: int) -> float:
        """How long until `images` are answered when so many are ahead of them, in seconds."""
        occupancy = self._occupancy(images_ahead + images)
        return images_ahead * self._pace_s(occupancy) + self._latency(
            max(images, min(images_ahead + images, self._max_batch_size))
        )

    def backlog_s(self, images_in: int) -> float:
        """How long the images that are in will take, in seconds."""
        return images_in * self._pace_s(self._occupancy(images_in))

    def _occupancy(self, images_in: int) -> int:
        return max(1, min(images_in, self._max_batch_size))

    def _table_pace_s(self, occupancy: int) -> float:
        return self._latency.warm_s(occupancy) / occupancy / self._instances

    def _pace_s(self, occupancy: int) -> float:
        """Seconds per image while so many are in."""
        # The metrics' thread asks, too: what it still computes of older factors goes to the older table.
        paces_s = self._paces_s
        pace_s = paces_s.get(occupancy)
        if pace_s is None:
            pace_s = paces_s[occupancy] = self._factor(occupancy) * self._table_pace_s(occupancy)
        return pace_s

    def _factor(self, occupancy: int) -> float:
        """On the table's pace; by the nearest occupancy that was measured."""
        place = occupancy.bit_length() - 1
        for distance in range(len(self._factors)):
            for near in (place - distance, place + distance):
                if 0 <= near < len(self._factors) and (factor := self._factors[near]) is not None:
                    return factor
        return 1.0
