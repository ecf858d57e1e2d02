"""Only this machine is put under load, unless somebody says otherwise."""

import pytest

from service.cli.bench.target import ForbiddenTarget, check_target


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50051", "127.3.2.1:1", "localhost:50051", "LOCALHOST:1", "[::1]:50051", "::1",
        "unix:/tmp/socket", "ipv4:127.0.0.1:50051", "ipv6:[::1]:50051", "dns:///localhost:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
    ],
)  # fmt: skip
def test_this_machine_may_be_loaded(address: str) -> None:
    check_target(address, allow_remote=False)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:50051", "fovea.example:443", "0.0.0.0:50051", "[::]:50051", "[2001:db8::1]:443",
        "localhost.example:50051", "127.0.0.1.example:1", "dns://8.8.8.8/localhost:1",
        "ipv4:127.0.0.1:1,10.0.0.1:2", "xds:///fovea", "",
    ],
)  # fmt: skip
def test_another_machine_only_when_told_to(address: str) -> None:
    with pytest.raises(ForbiddenTarget, match="--allow-remote"):
        check_target(address, allow_remote=False)
    check_target(address, allow_remote=True)
