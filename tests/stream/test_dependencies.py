"""Readiness asks the servers themselves, also while there is nothing to do."""

import socket

import pytest

from stream_infer.processes import free_port
from stream_infer.stream.dependencies import reachable


@pytest.mark.redis
def test_servers_that_answer_and_servers_that_do_not_are_told_apart(redis_url: str) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with socket.socket() as kafka:
        kafka.bind(("127.0.0.1", 0))
        kafka.listen()
        address = f"127.0.0.1:{kafka.getsockname()[1]}"
        # One address of several is enough.
        assert reachable([nowhere, address], redis_url)() == {"kafka": None, "redis": None}
    found = reachable([nowhere], f"redis://{nowhere}/0")()
    assert "ConnectionRefusedError" in str(found["kafka"])
    assert "ConnectionError" in str(found["redis"])


def test_a_password_is_in_no_answer() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    for scheme in ("redis", "redis+cluster"):
        found = reachable([nowhere], f"{scheme}://user:secret@{nowhere}")()
        assert found["redis"] is not None
        assert "secret" not in found["redis"]
