"""The benchmark of peers without their packages: pins, remarks, requests, what a run becomes."""

import ast
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks.batch_features import values_of
from benchmarks.figures import notes, table
from benchmarks.options import Options
from benchmarks.peers import measure, requests, streams
from benchmarks.peers.catalogue import BY_KEY, FOLDER, PEERS, Mode, Peer
from benchmarks.peers.environments import is_java, java_pins, pins_of, versions
from benchmarks.peers.scores import difference
from benchmarks.place import Place
from benchmarks.processes import BenchmarkError
from benchmarks.wire import answer_of

EXACT = re.compile(r"\d+(\.\d+)+([.-]?[a-z]+\d*)?")
PYTHON = [peer for peer in PEERS if not is_java(peer)]
HTTP = [peer for peer in PEERS if peer.kind == "http"]
SAMPLE: streams.Run = {"throughput": (2_598.4, "/s"), "CPU": (340.2, "µs each")}


def test_every_folder_is_a_peer_and_every_peer_a_folder() -> None:
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    assert folders - {"common", "__pycache__"} == {peer.folder.name for peer in PEERS}


@pytest.mark.parametrize("peer", PYTHON, ids=lambda peer: peer.key)
def test_every_package_of_a_peer_is_pinned(peer: Peer) -> None:
    locked = pins_of(peer.folder / "requirements.lock")
    asked = pins_of(peer.folder / "requirements.in")
    assert asked.items() <= locked.items()
    assert all(EXACT.fullmatch(version) for version in locked.values())
    assert versions(peer) == {name: locked[name] for name in peer.packages}


def test_every_artifact_and_plugin_of_java_is_pinned() -> None:
    peer = BY_KEY["kafka_streams"]
    pins = java_pins(peer)
    assert pins["kafka-streams"] == "4.2.0"
    assert all(EXACT.fullmatch(version) for version in pins.values())
    assert set(versions(peer)) == set(peer.packages)


def test_a_line_that_pins_nothing_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# made by uv\nfeast[redis]==0.67.0\nray>=2\n")
    with pytest.raises(BenchmarkError, match="ray>=2"):
        pins_of(lock)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.py")), ids=lambda path: path.parent.name)
def test_a_peers_program_is_small_and_knows_nothing_of_ours(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 150
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"stream_infer", "benchmarks", "tests"}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_figures_carry_versions_and_honest_remarks(peer: Peer) -> None:
    said = []
    for mode in peer.modes:
        case = {"peer": peer.name, "mode": mode.name}
        found = notes(measure.as_figures(dict(SAMPLE), case, measure.remarks(peer, mode)))
        assert all(note.startswith(peer.name) for note in found)
        assert mode.remarks in " ".join(found)
        said += found
    assert sum(peer.remarks in note for note in said) == 1
    assert all(f"{name} {version}" in said[0] for name, version in versions(peer).items())


def test_a_table_has_a_row_for_each_mode_and_a_dash_for_what_collapsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer = BY_KEY["quix_streams"]

    def through_backlog(_: Place, peer: Peer, mode: Mode, __: streams.Backlog) -> streams.Run:
        if not mode.compared:
            raise BenchmarkError("stands at 7 of 9 events; it said: out of memory")
        return dict(SAMPLE)

    def at_rate(*_: object) -> streams.Run:
        return {"p50": (5.6, "ms"), "p99": (18.0, "ms")}

    monkeypatch.setattr(streams, "through_backlog", through_backlog)
    monkeypatch.setattr(streams, "at_rate", at_rate)
    events = streams.Backlog("topic", 9, {})
    place = Place.__new__(Place)
    found = [measure.stream_figures(place, peer, mode, events, Options()) for mode in peer.modes]
    head, good, bad = table([item for figures in found for item in figures])
    by_column = dict(zip(head, good, strict=True))
    assert by_column["throughput (/s)"] == "2,598"
    assert by_column["p99 (ms)"] == "18"
    assert bad[head.index("throughput (/s)")] == "–"
    assert bad[head.index("failed")] == "1"
    assert "out of memory" in notes(found[1])[0]


def test_a_slow_peer_is_not_asked_for_its_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: streams.Run = {"throughput": (288.0, "/s")}
    monkeypatch.setattr(streams, "through_backlog", lambda *_: slow)
    peer = BY_KEY["plain_faust"]
    events = streams.Backlog("topic", 9, {})
    place = Place.__new__(Place)
    figures = measure.stream_figures(place, peer, peer.modes[0], events, Options())
    assert [item.name for item in figures] == ["throughput", "keeps up"]
    assert "2,000/s" in figures[1].note


@pytest.mark.parametrize("peer", HTTP, ids=lambda peer: peer.key)
def test_a_request_names_its_payment(peer: Peer) -> None:
    request = requests.request_of(peer, 42)
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    for value in requests.payment_of(42).values():
        assert str(value).encode() in body


def test_a_difference_is_over_the_events_that_both_scored() -> None:
    first, second = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    ours = {("a", first): 1.0, ("b", first): 2.0}
    theirs = {("a", first): 1.5, ("b", second): 9.0}
    assert difference(ours, theirs) == (1, 0.5)
    count, worst = difference(ours, {})
    assert count == 0
    assert math.isnan(worst)


def test_answers_are_counted_whole() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + b'{"score": 1}\n'
    assert answer_of(answer) == (200, len(answer))
    assert answer_of(answer[:-1]) is None


def test_the_first_events_are_of_few_accounts(place: Place) -> None:
    with streams.backlog(place, Options(events=2_000)) as events:
        assert events.total == streams.COMPARED + streams.KEYS + 2_000
        accounts = {account for account, _ in events.ours}
        assert len(events.ours) > len(accounts) > 1
        assert len(accounts) <= streams.COMPARED_KEYS
        assert np.isfinite(list(events.ours.values())).all()
        topic = events.topic
    assert topic not in place.kafka.topics()
    assert values_of(0, 1).shape == (1, 8)
