"""How the client connects: limits, keepalive, and which calls are tried again."""

import json
import os
import re

import grpc

# Calls that do the same when they are done twice. Streams are not: their images are gone.
_IDEMPOTENT = (
    ("fovea.v1.ClassificationService", "Classify"),
    ("fovea.v1.EmbeddingService", "Embed"),
    ("fovea.v1.ModelService", "ListModels"),
    ("fovea.v1.ModelService", "GetModel"),
    ("fovea.v1.RetrievalService", "GetCollection"),
    ("fovea.v1.RetrievalService", "ListCollections"),
    ("fovea.v1.RetrievalService", "Upsert"),
    ("fovea.v1.RetrievalService", "Delete"),
    ("fovea.v1.RetrievalService", "Get"),
    ("fovea.v1.RetrievalService", "Count"),
    ("fovea.v1.RetrievalService", "Search"),
    ("fovea.v1.RetrievalService", "Scan"),
    ("fovea.v1.RetrievalService", "Flush"),
    ("fovea.v1.RetrievalService", "ListSnapshots"),
)
DEFAULT_TARGET = "127.0.0.1:50051"
"""Where a server on this machine listens, unless it was told otherwise."""
# Of gRPC's names; see its "name resolution".
_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds", "google-c2p")
_HOST_PORT = re.compile(r"([^\s:/\[\]]+|\[[0-9A-Fa-f:.%\w]+\]):(?P<port>[0-9]{1,5})")
# gRPC allows 5 attempts.
MAX_RETRIES = 4


def default_target() -> str:
    """Where the server is when nobody says: $FOVEA_ADDRESS, else the port of a server on this machine."""
    return os.environ.get("FOVEA_ADDRESS") or DEFAULT_TARGET


def checked_target(target: str) -> str:
    """The address, if gRPC can connect to it; without a port it would try 443.

    Raises:
        ValueError: it is neither host:port nor one of gRPC's names.
    """
    scheme = target.partition(":")[0]
    if scheme in _SCHEMES:
        return target
    found = _HOST_PORT.fullmatch(target)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise ValueError(
            f"the server's address is {target!r}; expected host:port, for instance {DEFAULT_TARGET}"
        )
    return target


def channel_options(max_message_bytes: int, retries: int) -> list[tuple[str, str | int]]:
    """Options of a gRPC channel.

    Args:
        max_message_bytes: of one request or reply.
        retries: how often a safe call is tried again, 0 to 4.

    Raises:
        ValueError: a value outside its range.
    """
    if max_message_bytes < 64 * 1024:
        raise ValueError(f"max_message_bytes is {max_message_bytes}; expected at least 65536")
    if not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries is {retries}; expected 0 to {MAX_RETRIES}")
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", _service_config(retries)),
        ("grpc.enable_retries", int(retries > 0)),
        # What gRPC keeps for a second attempt; at its default of 256 KiB photos are tried only once.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes + 64 * 1024),
        # gRPC servers hang up on clients that ping more often than every 5 minutes. The timeout is
        # also how long sent bytes may stay unacknowledged, which finds a dead peer much sooner.
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # A server that restarts is found again within seconds, not after gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]


def _service_config(retries: int) -> str:
    # Over all the addresses that the name has, as a headless Kubernetes Service gives them; gRPC's
    # default would send everything to the first.
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if retries:
        config |= _retry_config(retries)
    return json.dumps(config)


def _retry_config(retries: int) -> dict[str, object]:
    policy = {
        "maxAttempts": retries + 1,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        # The server's push-back on an overload counts only where its status is listed here.
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }
    names = [{"service": service, "method": method} for service, method in _IDEMPOTENT]
    return {
        "methodConfig": [{"name": names, "retryPolicy": policy}],
        # When about half of all calls fail, trying again stops until it gets better.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, str | int]]
) -> grpc.Channel:
    """A channel for threads."""
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def open_aio_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, str | int]]
) -> grpc.aio.Channel:
    """A channel for asyncio."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)
