"""HTTP peers on the same request: one payment, its batch features by Feast, the three models."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.generator import account_name
from benchmarks.http import load, stores_on
from benchmarks.options import Options
from benchmarks.peers.catalogue import Mode, Peer
from benchmarks.peers.programs import cpu_s, resident_bytes, running
from benchmarks.peers.scores import without_history
from benchmarks.place import Place
from benchmarks.processes import BenchmarkError, Process
from benchmarks.wire import ask, connect
from stream_infer.processes import wait_until

ACCOUNTS = 5_000
STEADY_PER_S = 1_000
FIRST_MAX_S = 90.0
KEPT_SHARE = 0.98
"""A peer keeps up with a steady rate where it answers this share of it."""
_TYPES = {"account": "BYTES", "amount": "FP64", "items": "INT64"}

Run = dict[str, tuple[float, str]]


def payment_of(account: int) -> dict[str, Any]:
    """The payment that a request asks about."""
    paid = {"amount": 20.0 + account % 50, "items": 1 + account % 9}
    return {"account": account_name(account), **paid}


def request_of(peer: Peer, account: int) -> bytes:
    """One request, as the peer wants it."""
    payment = payment_of(account)
    path = "/score"
    if peer.key == "ml_server":
        path = "/v2/models/standard/infer"
        tensors = [
            {"name": name, "shape": [1], "datatype": _TYPES[name], "data": [value]}
            for name, value in payment.items()
        ]
        payment = {"inputs": tensors}
    body = json.dumps(payment, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def score_of(peer: Peer, body: bytes) -> float:
    """The score in an answer."""
    answer = json.loads(body)
    if peer.key == "ml_server":
        named = {output["name"]: output["data"][0] for output in answer["outputs"]}
        return float(named["score"])
    return float(answer["score"])


@contextlib.contextmanager
def serving(place: Place, peer: Peer, mode: Mode, core: int) -> Iterator[Process]:
    """Start a peer on one core; yield it once it has answered."""
    with running(place, peer, mode, core=core) as server:

        def answers() -> bool:
            try:
                with connect(server.port) as connection:
                    return ask(connection, request_of(peer, 0))[0] == 200
            except OSError:
                return False

        if not wait_until(
            answers,
            alive=lambda: server.process.poll() is None,
            timeout_s=FIRST_MAX_S,
            interval_s=0.2,
        ):
            raise server.failure("never answered with 200")
        yield server


def apart(place: Place, peer: Peer, server: Process, accounts: int) -> float:
    """The greatest difference of its scores from what the models give us."""
    worst = 0.0
    with connect(server.port) as connection:
        for account in range(accounts):
            status, body = ask(connection, request_of(peer, account))
            if status != 200:
                raise server.failure(f"answered {status}: {body[:200]!r}")
            expected = without_history(place, account, payment_of(account))
            worst = max(worst, abs(score_of(peer, body) - expected))
    return worst


def under_load(
    place: Place, peer: Peer, mode: Mode, options: Options
) -> tuple[Run, Mapping[str, str]]:
    """Measure a peer at saturation and at the steady rate; and say where it collapsed."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("needs two cores: one for the server, one for the load")
    requests = _requests(place, peer)
    with stores_on(place, cores[1]), serving(place, peer, mode, cores[0]) as server:
        run: Run = {"apart from ours, at most": (apart(place, peer, server, 5), "")}
        collapsed = {}
        before_s = cpu_s(server.pid)
        at_most = _load(server, cores[1], options, requests)
        used_s = cpu_s(server.pid) - before_s
        answered = at_most["accepted"][0] * (options.seconds + options.warm_up_s)
        run["throughput"] = (at_most["accepted"][0], "/s")
        run["CPU"] = (used_s * 1e6 / max(answered, 1), "µs each")
        run["memory"] = (resident_bytes(server.pid) / 1e6, "MB")
        steady = _load(server, cores[1], options, requests, STEADY_PER_S)
        run |= {name: steady[name] for name in ("p50", "p99")}
        kept = steady["accepted"][0]
        if kept < STEADY_PER_S * KEPT_SHARE:
            collapsed["at the steady rate"] = (
                f"collapses at {STEADY_PER_S:,}/s: answered {kept:,.0f}/s, "
                f"{steady['unanswered'][0]:,.0f} requests not at all; its latencies are those of a "
                "queue that grew until the load ended"
            )
    return run, collapsed


def _load(server: Process, core: int, options: Options, requests: Path, rate: float = 0.0) -> Run:
    return load("", server.port, core, options, rate, requests=requests)


def _requests(place: Place, peer: Peer) -> Path:
    path = place.folder / "peers" / f"{peer.key}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([request_of(peer, n).decode() for n in range(ACCOUNTS)]))
    return path
