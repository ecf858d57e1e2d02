"""The request path: images → door → decode → preprocess → batch → session → postprocess → predictions."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from service.admission import Load, Permit
from service.budget import Budget
from service.config import Config
from service.decoding import DecodingStage
from service.errors import DeadlineExpired, InvalidImage, Overloaded, RequestError
from service.group import Entry, Group, Priority
from service.image import ImageLimits, RawImage, from_raw, open_image
from service.metrics import Metrics
from service.model import Input, Model, Prediction, Undecoded
from service.preprocess import Preprocessing, preprocess

ImageSource = bytes | RawImage
# The caller's own timer runs out a little before ours: who leaves this close to it wasn't cancelling.
EXPIRED_WITHIN_S = 0.05
_READ_ONE_OF = 8

log = structlog.get_logger()


class InferenceRequest(NamedTuple):
    """What a caller wants.

    Attributes:
        model: what the images run through.
        images: one or more.
        deadline: loop time, in seconds.
        top_k: how many classes of each image are ranked; 0 for none.
        priority: who goes first.
    """

    model: Model
    images: Sequence[ImageSource]
    deadline: float
    top_k: int = 0
    priority: Priority = Priority.INTERACTIVE


class Work:
    """A request that is in: its images are being decoded, queued or run.

    Attributes:
        model: what they run through.
        load: its images and bytes.
        group: gets one `Prediction`, or its own error, per image, in the request's order. As soon as it
            is over the room is others': a stream's caller may take long to read the answers.
    """

    __slots__ = ("group", "load", "model")

    def __init__(self, model: Model, load: Load, group: Group[Prediction]) -> None:
        self.model, self.load, self.group = model, load, group


class Pipeline:
    """Answers with one result per image, or that image's own error, in the request's order.

    Deadlines are loop times, in seconds. A unary request is refused where there is no room or no time; a
    stream's message waits. All methods raise Overloaded, DeadlineExpired, InvalidRequest or Unavailable
    for the whole request.
    """

    def __init__(
        self, config: Config, decode_threads: int, metrics: Metrics, code_of: Callable[[RequestError], str]
    ) -> None:
        """Start the decoding threads, on the running loop.

        Args:
            config: limits.
            decode_threads: 0: the thread that runs a batch decodes its images.
            metrics: are told how every image ended.
            code_of: an error's code, for the metrics.
        """
        self._metrics, self._code_of = metrics, code_of
        self._limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)
        self._decoding_pixels = Budget(config.max_decoding_pixels)
        # On Python 3.11 asking for it makes a system call each time.
        self._loop = asyncio.get_running_loop()
        self._unread = 0  # requests that would be refused unread
        self._decoding = DecodingStage(decode_threads) if decode_threads else None

    def refuse_early(self, model: Model, deadline: float) -> None:
        """Refuse a request of which only the deadline is known, if even one image would be refused.

        One of eight is let through to be read all the same: it may be bulk work, which has a share of its
        own, and only its message says so.

        Raises:
            Overloaded.
        """
        try:
            model.admission.check_room(deadline)
        except Overloaded as error:
            self._unread += 1
            if self._unread % _READ_ONE_OF == 0:
                return
            self._count_lost(model, 1, error, deadline)  # at least
            raise

    async def infer(self, request: InferenceRequest) -> list[Prediction | RequestError]:
        """Run a request's images through a model; it is refused where there is no room or no time."""
        try:
            permit = request.model.admission.admit(_load(request.images), request.deadline, request.priority)
            work = self._begin(request, permit, alone=True)
        except RequestError as error:
            self._count_lost(request.model, len(request.images), error, request.deadline)
            raise
        try:
            await work.group.wait()
        except BaseException as error:
            self._count_lost(request.model, len(request.images), error, request.deadline)
            work.group.leave()
            raise
        return self.finish(work)

    async def infer_patiently(self, request: InferenceRequest) -> list[Prediction | RequestError]:
        """As `infer`, but it waits for room, as a stream's message does."""
        work = self.try_begin(request) or await self.begin(request)
        try:
            await work.group.until_done()
        except BaseException:
            self.abandon(work)
            raise
        return self.finish(work)

    def try_begin(self, request: InferenceRequest) -> Work | None:
        """Let a stream's message in if there is room now; else `begin` waits for it.

        Raises:
            As `begin`.
        """
        try:
            permit = request.model.admission.try_stream(
                _load(request.images), request.deadline, request.priority
            )
            return self._begin(request, permit, alone=False) if permit else None
        except RequestError as error:
            self._count_lost(request.model, len(request.images), error, request.deadline)
            raise

    async def begin(self, request: InferenceRequest) -> Work:
        """Let a stream's message in as soon as there is room.

        Its group has no timer of its own: whoever waits for it, with `until_done`, sees to its deadline.
        """
        try:
            permit = await request.model.admission.admit_stream(
                _load(request.images), request.deadline, request.priority
            )
            return self._begin(request, permit, alone=False)
        except BaseException as error:
            self._count_lost(request.model, len(request.images), error, request.deadline)
            raise

    def finish(self, work: Work) -> list[Prediction | RequestError]:
        """The results of work whose group is done."""
        try:
            predictions = work.group.results()
        except RequestError as error:
            self._count_lost(work.model, work.load.images, error, work.group.deadline)
            raise
        self._count_ends(work.model, predictions)
        work.model.metrics.slack.observe(work.group.deadline - time.monotonic())
        return predictions

    def abandon(self, work: Work) -> None:
        """Its caller left before `finish`."""
        self._count_lost(work.model, work.load.images, asyncio.CancelledError(), work.group.deadline)
        work.group.leave()

    def _begin(self, request: InferenceRequest, permit: Permit, *, alone: bool) -> Work:
        model, images, top_k = request.model, request.images, request.top_k
        group: Group[Prediction] = Group(
            len(images), request.deadline, request.priority, self._loop, timed=alone, on_over=permit.release
        )
        work = Work(model, permit.load, group)
        try:
            ready = []
            for index, image in enumerate(images):
                entry = Entry(group, index)
                if type(image) is RawImage and model.takes_as_is(image.height, image.width):
                    # Pixels that are the model's input already: nothing here is worth a thread.
                    try:
                        entry.value = Input(from_raw(image, self._limits), top_k)
                    except InvalidImage as error:
                        group.set(index, error.with_traceback(None))
                    else:
                        ready.append(entry)
                elif self._decoding is None:
                    entry.value = Undecoded(partial(self._prepare_timed, image, model), top_k)
                    ready.append(entry)
                else:
                    prepare = partial(self._prepare, image, model.preprocessing)
                    self._decoding.put(entry, prepare, partial(self._decoded, model, top_k))
            if ready:
                model.batcher.put(*ready)
        except BaseException:
            group.leave()
            raise
        return work

    def _decoded(self, model: Model, top_k: int, entry: Entry, pixels: NDArray[np.uint8]) -> None:
        model.metrics.decode.observe(time.monotonic() - entry.arrived)
        entry.value = Input(pixels, top_k)
        model.batcher.put(entry)

    def _prepare_timed(self, image: ImageSource, model: Model) -> NDArray[np.uint8]:
        started = time.monotonic()
        pixels = self._prepare(image, model.preprocessing)
        model.metrics.decode.observe(time.monotonic() - started)
        return pixels

    def _prepare(self, image: ImageSource, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        if isinstance(image, RawImage):
            return preprocess(from_raw(image, self._limits), preprocessing)
        opened = open_image(image, self._limits, preprocessing.least_short_side)
        with self._decoding_pixels.hold(opened.pixels):
            return preprocess(opened.decode(), preprocessing)

    def _count_ends(self, model: Model, predictions: Sequence[Prediction | RequestError]) -> None:
        errors = [prediction for prediction in predictions if isinstance(prediction, RequestError)]
        if len(errors) < len(predictions):
            model.metrics.images_ok.inc(len(predictions) - len(errors))
        if not errors:
            return
        for code, images in Counter(self._code_of(error) for error in errors).items():
            model.metrics.images(code).inc(images)
        log.warning(
            "images_failed", model=model.manifest.name, images=len(errors), first_error=str(errors[0])
        )

    def _count_lost(self, model: Model, images: int, error: BaseException, deadline: float) -> None:
        """A request ends without an answer, so that all its images are lost."""
        if isinstance(error, asyncio.CancelledError):
            late = time.monotonic() >= deadline - EXPIRED_WITHIN_S
            reason, code = ("expired", "DEADLINE_EXCEEDED") if late else ("cancelled", "CANCELLED")
        else:
            reason = error.reason if isinstance(error, Overloaded | DeadlineExpired) else ""
            code = self._code_of(error) if isinstance(error, RequestError) else "INTERNAL"
        model.metrics.images(code).inc(images)
        if reason:
            model.metrics.shed[reason].inc(images)

    def close(self, timeout_s: float) -> bool:
        """End the decoding threads; whether they ended within the time."""
        return self._decoding is None or self._decoding.close(timeout_s)


def _load(images: Sequence[ImageSource]) -> Load:
    if len(images) == 1:  # mostly
        image = images[0]
        return Load(1, len(image.data if isinstance(image, RawImage) else image))
    return Load(
        len(images), sum(len(image.data if isinstance(image, RawImage) else image) for image in images)
    )
