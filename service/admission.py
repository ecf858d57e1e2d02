"""The door of a model: how much may be in at a time, and who would be answered too late.

A unary request is let in whole or refused at once, before any work is paid for: even its images aren't
looked at. A message of a stream waits for its turn instead. What was let in counts until its work is
done: decoding, waiting, running.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from service.entry_queue import BULK_SHARE
from service.errors import DeadlineExpired, InvalidRequest, Overloaded, Unavailable
from service.forecast import Forecast
from service.group import Priority


class Load(NamedTuple):
    """What a request brings, or what there is room for.

    Attributes:
        images: how many.
        size_bytes: of the encoded images or raw pixels.
    """

    images: int
    size_bytes: int

    def fits(self, room: "Load") -> bool:
        """Whether it is no more than `room`, in both."""
        return self.images <= room.images and self.size_bytes <= room.size_bytes

    def half(self) -> "Load":
        """Half of it, rounded down."""
        return Load(self.images // 2, self.size_bytes // 2)

    def __str__(self) -> str:
        return f"{self.images} images and {self.size_bytes:,} bytes"


_SMALLEST = Load(1, 1)


class Permit:
    """A request that is in; its holder calls `release` once, when its work is done or given up."""

    __slots__ = ("_admission", "deadline", "load", "patient", "priority")

    def __init__(
        self, admission: "Admission", load: Load, deadline: float, priority: Priority, patient: bool
    ) -> None:
        self._admission, self.load, self.deadline = admission, load, deadline
        self.priority, self.patient = priority, patient

    def release(self) -> None:
        """Make room for others."""
        self._admission._release(self)


class Admission:
    """Lets requests in while there is room and time. All methods belong to one event loop.

    Attributes:
        images: how many are in.
    """

    def __init__(self, capacity: Load, forecast: Forecast) -> None:
        """Open the door.

        Args:
            capacity: what may be in at a time. Streams and bulk work together get at most half, so that
                they never shut the others out.
            forecast: when a request would be answered.
        """
        self._capacity, self._patient_capacity = capacity, capacity.half()
        self._forecast = forecast
        self.images = self._bytes = 0
        self._patient_images = self._patient_bytes = 0
        self._permits: set[Permit] = set()
        self._turns: deque[tuple[Permit, asyncio.Future[None]]] = deque()
        self._closed = False

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True

    def admit(self, load: Load, deadline: float, priority: Priority = Priority.INTERACTIVE) -> Permit:
        """Let a request in, or refuse it at once.

        Raises:
            Overloaded: there is no room now, or it would be answered after its deadline.
            DeadlineExpired: it has passed.
            InvalidRequest: there could never be room.
            Unavailable: the door is closed.
        """
        patient = priority is Priority.BULK
        self._check(load, self._patient_capacity if patient else self._capacity, deadline)
        self._check_room(load, deadline, priority)
        return self._hold(Permit(self, load, deadline, priority, patient))

    def check_room(self, deadline: float) -> None:
        """Whether a request of one image could be let in now.

        Raises:
            Overloaded: as `admit`.
        """
        self._check_room(_SMALLEST, deadline, Priority.INTERACTIVE)

    def try_stream(self, load: Load, deadline: float, priority: Priority) -> Permit | None:
        """Let one message of a stream in if there is room now and nobody waits; else `admit_stream`.

        Raises:
            As `admit_stream`.
        """
        self._check(load, self._patient_capacity, deadline)
        if self._turns or not self._fits(load, patient=True):
            return None
        return self._hold(Permit(self, load, deadline, priority, patient=True))

    async def admit_stream(self, load: Load, deadline: float, priority: Priority) -> Permit:
        """Let one message of a stream in as soon as there is room, in turn.

        Raises:
            DeadlineExpired: there was no room in time.
            InvalidRequest: there could never be.
            Unavailable: the door is closed.
        """
        if permit := self.try_stream(load, deadline, priority):
            return permit
        permit = Permit(self, load, deadline, priority, patient=True)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (permit, turn)
        self._turns.append(place)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it was given in the same instant
                permit.release()
            else:
                with suppress(ValueError):  # a release in between has already passed over it
                    self._turns.remove(place)
                self._give_turns()
            if isinstance(error, TimeoutError):
                raise DeadlineExpired("the deadline passed while the message waited for room") from None
            raise
        return permit

    def _check(self, load: Load, capacity: Load, deadline: float) -> None:
        if self._closed:
            raise Unavailable("the server is draining; try another one")
        if not load.fits(capacity):
            raise InvalidRequest(f"the request has {load}; at most {capacity} fit in the queue")
        if time.monotonic() >= deadline:
            raise DeadlineExpired("the deadline had passed before the work began")

    def _check_room(self, load: Load, deadline: float, priority: Priority) -> None:
        patient = priority is Priority.BULK
        if not self._fits(load, patient=patient):
            capacity = self._patient_capacity if patient else self._capacity
            raise Overloaded(
                f"the queue has room for {self._room(patient)}, of {capacity}; the request has {load}; "
                "try again later",
                retry_after_ms=1000 * self._forecast.backlog_s(self.images),
            )
        # Where nothing is in, nobody is kept from anything: so a forecast that is wrong is put right.
        if self.images and (late_s := self._late_s(load.images, deadline, priority)) > 0:
            raise Overloaded(
                f"the {self.images} images that are in leave no time for {load.images} more before the "
                f"deadline ({1000 * late_s:.0f} ms too late); try again later",
                retry_after_ms=1000 * late_s,
                reason="predicted_late",
            )

    def _fits(self, load: Load, *, patient: bool) -> bool:
        """As `load.fits(self._room(patient))`, cheaper: every image passes here."""
        images, size_bytes = self.images + load.images, self._bytes + load.size_bytes
        if images > self._capacity.images or size_bytes > self._capacity.size_bytes:
            return False
        return not patient or (
            self._patient_images + load.images <= self._patient_capacity.images
            and self._patient_bytes + load.size_bytes <= self._patient_capacity.size_bytes
        )

    def _room(self, patient: bool) -> Load:
        images, size_bytes = self._capacity.images - self.images, self._capacity.size_bytes - self._bytes
        if patient:
            images = min(images, self._patient_capacity.images - self._patient_images)
            size_bytes = min(size_bytes, self._patient_capacity.size_bytes - self._patient_bytes)
        return Load(images, size_bytes)

    def _late_s(self, images: int, deadline: float, priority: Priority) -> float:
        """By how much it would be late, in seconds; not above 0 if it is in time."""
        left_s = deadline - time.monotonic()
        if (late_s := self._forecast.wait_s(self.images, images) - left_s) <= 0:
            return late_s  # even if all that is in went first
        before = sum(permit.load.images for permit in self._permits if permit.priority < priority)
        equals = sum(
            permit.load.images
            for permit in self._permits
            if permit.priority is priority and permit.deadline <= deadline
        )
        ahead = before + equals
        wait_s = self._forecast.wait_s(ahead, images)
        if priority is Priority.BULK:
            # Whatever goes first, bulk work advances with its share.
            places = round((equals + images) / BULK_SHARE)
            wait_s = min(wait_s, self._forecast.wait_s(places - images, images))
        elif ahead < self.images:
            wait_s /= 1 - BULK_SHARE
        return wait_s - left_s

    def _hold(self, permit: Permit) -> Permit:
        self.images += permit.load.images
        self._bytes += permit.load.size_bytes
        if permit.patient:
            self._patient_images += permit.load.images
            self._patient_bytes += permit.load.size_bytes
        self._permits.add(permit)
        return permit

    def _release(self, permit: Permit) -> None:
        self._permits.remove(permit)
        self.images -= permit.load.images
        self._bytes -= permit.load.size_bytes
        if permit.patient:
            self._patient_images -= permit.load.images
            self._patient_bytes -= permit.load.size_bytes
        if self._turns:
            self._give_turns()

    def _give_turns(self) -> None:
        while self._turns and self._fits(self._turns[0][0].load, patient=True):
            permit, turn = self._turns.popleft()
            if not turn.done():
                self._hold(permit)
                turn.set_result(None)
