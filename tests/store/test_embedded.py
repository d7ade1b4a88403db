"""The embedded Redis keeps what it acknowledged and leaves no process behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest
import redis

from stream_infer.core.errors import StreamInferError
from stream_infer.processes import Guarded, wait_until
from stream_infer.store import embedded
from stream_infer.store.embedded import EmbeddedRedis


def test_data_survive_a_restart_at_the_same_address(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    with server, redis.Redis.from_url(server.url) as client:
        client.set("row", b"\x00\xff")
        url = server.url
    with server, redis.Redis.from_url(server.url) as client:
        assert server.url == url
        assert client.get("row") == b"\x00\xff"


def test_data_survive_a_crash_of_the_server(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, options={"appendfsync": "always"}) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("row", "kept")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("row") == b"kept"


def test_it_listens_on_loopback_and_never_evicts(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert server.pid is not None
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(server.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_one_server_a_directory(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path),
        pytest.raises(StreamInferError, match="already serves another"),
    ):
        EmbeddedRedis(tmp_path).start()


def test_a_port_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "first") as first,
        pytest.raises(StreamInferError, match=r"Failed listening on port \d+"),
    ):
        EmbeddedRedis(tmp_path / "second", port=first.port).start()


def _tunables(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What the C library of a server is told, which then writes over its own copy of it."""
    told: list[str | None] = []

    def guarded(command: Sequence[str], env: Mapping[str, str]) -> Guarded:
        told.append(env.get("GLIBC_TUNABLES"))
        return Guarded(command, env=env)

    monkeypatch.setattr(embedded, "Guarded", guarded)
    with EmbeddedRedis(directory) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
    return told[-1]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", "glibc.malloc.tcache_count=60000"),
        ("glibc.malloc.perturb=1", "glibc.malloc.perturb=1:glibc.malloc.tcache_count=60000"),
        ("glibc.malloc.tcache_count=9", "glibc.malloc.tcache_count=9"),
    ],
)
def test_the_c_library_keeps_freed_memory_at_hand_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, kept: str
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", given)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.30")
    assert _tunables(tmp_path, monkeypatch) == kept


@pytest.mark.parametrize("library", ["glibc 2.29", "glibc 2.4", "other 3.1", ""])
def test_a_c_library_that_cannot_keep_as_much_is_not_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "confstr", lambda name: library)
    assert _tunables(tmp_path, monkeypatch) is None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    program = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from stream_infer.store.embedded import EmbeddedRedis\n"
        "print(EmbeddedRedis(Path(sys.argv[1])).start().pid, flush=True)\n"
        "signal.pause()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(how)
    assert wait_until(lambda: not server.is_running(), timeout_s=10)
