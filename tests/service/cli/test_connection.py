"""What a person reads where the server doesn't answer in time."""

import click
import pytest
from fovea import DeadlineExceeded

from service.cli.connection import connected
from tests.service.cli.conftest import Fovea


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            DeadlineExceeded("Deadline Exceeded"),
            "127.0.0.1:1 hasn't answered within 2.5 s; allow more with --timeout-s",
        ),
        (
            DeadlineExceeded("the deadline passed in the queue", request_id="7"),
            "the deadline passed in the queue",
        ),
    ],
)
def test_a_deadline_says_how_long_it_was(error: DeadlineExceeded, said: str) -> None:
    with pytest.raises(click.ClickException) as told, connected("127.0.0.1:1", 2.5):
        raise error
    assert told.value.message == said


def test_a_name_that_is_no_utf_8() -> None:
    with pytest.raises(click.ClickException) as told, connected("127.0.0.1:1", 2.5) as client:
        client.count("caf\udce9")
    assert told.value.message == r"'caf\udce9' isn't UTF-8; expected names and ids that are"


@pytest.mark.parametrize("address", ["localhost", "[::1]", "localhost:"])
def test_an_address_without_a_port(fovea_command: Fovea, address: str) -> None:
    done = fovea_command("models", "--address", address)
    assert done.exit_code == 2
    assert f"{address!r} has no port; expected HOST:PORT, for instance " in " ".join(done.stderr.split())


def test_an_address_that_is_none() -> None:
    with pytest.raises(click.ClickException) as told, connected("http://localhost:50051", 2.5):
        pass
    assert told.value.message.startswith(
        "--address: the server's address is 'http://localhost:50051'; expected host:port"
    )
