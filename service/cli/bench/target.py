"""Which server may be put under load."""

import ipaddress


class ForbiddenTarget(ValueError):
    """The server isn't on this machine, and nobody said that it may be loaded."""


def check_target(address: str, *, allow_remote: bool) -> None:
    """Let through what is on this machine, or what the caller answers for.

    Args:
        address: as gRPC takes it: host:port, [IPv6]:port, unix:path.
        allow_remote: whether another machine may be loaded.

    Raises:
        ForbiddenTarget: it is another machine, and not allowed.
    """
    if allow_remote or _is_loopback(address):
        return
    raise ForbiddenTarget(
        f"{address} is not on this machine; a load test can make a server refuse its real callers, so "
        "another machine is loaded only with --allow-remote (loopback addresses are 127.0.0.1:PORT, "
        "localhost:PORT, [::1]:PORT and unix:PATH)"
    )


def _is_loopback(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("ipv4:", "ipv6:", "dns:///", "dns:"):
        address = address.removeprefix(scheme)
    # gRPC takes lists of addresses; each one counts.
    return all(_is_loopback_host(part) for part in address.split(","))


def _is_loopback_host(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") > 1:  # IPv6 without a port
        host = address
    else:
        host = address.partition(":")[0]
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
