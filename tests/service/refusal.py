"""What a server that refuses a call says."""

from collections.abc import Callable

import grpc
import pytest


def refusal(call: Callable[[], object], code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> str:
    """The message of a call that ends with this status."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code, caught.value.details()
    return caught.value.details() or ""
