"""Many callers send a large message each at the same moment, while another one goes on with small ones."""

import asyncio
import time
from collections import Counter
from typing import Any

import grpc.aio
import uvloop
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import image_pb2

from benchmarks.figures import Figure
from benchmarks.pinned import PinnedProcess
from benchmarks.raw_load import channel_options
from benchmarks.tiny_model import SIDE

CALLERS = 400
CONNECTIONS = 4
SIZE_BYTES = 4 * 1024 * 1024
# How much more than when idle the server may take.
MEMORY_BAR_MIB = 512
_METHOD = "/fovea.v1.ClassificationService/Classify"
_TIMEOUT_S = 60.0
_MIB = 1024 * 1024


def measure(server: PinnedProcess) -> tuple[str, list[Figure]]:
    """What became of the calls, in words, and the figures.

    Both kinds of 4 MiB are sent: pixels, which are answered, and bytes that are no image.
    """
    side = int((SIZE_BYTES / 3) ** 0.5)
    pixels = image_pb2.RawImage(data=bytes(side * side * 3), height=side, width=side)
    bodies = [
        pb.ClassifyRequest(images=[image]).SerializeToString()
        for image in (image_pb2.Image(raw=pixels), image_pb2.Image(encoded=b"x" * SIZE_BYTES))
    ]
    idle = server.resident_bytes()
    outcomes: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for body in bodies:
        uvloop.run(_burst(server.address, body, outcomes, small))
    over_mib = (server.peak_resident_bytes() - idle) / _MIB
    words = (
        f"{CALLERS} callers × {SIZE_BYTES // _MIB} MiB at once, twice: {dict(outcomes)}; "
        f"small calls meanwhile: {dict(small)}; "
        f"{idle / _MIB:.0f} MiB idle, {over_mib:.0f} MiB more at the peak"
    )
    return words, [
        Figure("front_end_burst_memory_spare_mib", MEMORY_BAR_MIB - over_mib, 0),
        Figure("front_end_burst_answered_share", outcomes["OK"] / outcomes.total(), 0.99),
    ]


async def _burst(address: str, body: bytes, outcomes: Counter[str], small: Counter[str]) -> None:
    channels = [
        grpc.aio.insecure_channel(address, options=channel_options(number))
        for number in range(CONNECTIONS + 1)
    ]
    raw = image_pb2.RawImage(data=bytes(SIDE * SIDE * 3), height=SIDE, width=SIDE)
    light = pb.ClassifyRequest(images=[image_pb2.Image(raw=raw)]).SerializeToString()
    normal = asyncio.create_task(_again_and_again(channels[-1], light, small))
    await asyncio.gather(
        *(_call(channels[number % CONNECTIONS], body, outcomes) for number in range(CALLERS))
    )
    normal.cancel()
    await asyncio.gather(normal, return_exceptions=True)
    for channel in channels:
        await channel.close()


async def _again_and_again(channel: grpc.aio.Channel, body: bytes, outcomes: Counter[str]) -> None:
    while True:
        started = time.perf_counter()
        await _call(channel, body, outcomes)
        await asyncio.sleep(max(0.0, started + 0.01 - time.perf_counter()))


async def _call(channel: grpc.aio.Channel, body: bytes, outcomes: Counter[str]) -> None:
    method: Any = channel.unary_unary(_METHOD)
    try:
        await method(body, timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        outcomes[error.code().name] += 1
    else:
        outcomes["OK"] += 1
