"""Stream peers on the standard job: a backlog, then a steady rate; and their scores beside ours."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.backlog import Progress, numbers_of, produce
from benchmarks.generator import Keys
from benchmarks.open_loop import finished, percentiles, receive, send, settle
from benchmarks.options import Options
from benchmarks.peers.catalogue import Mode, Peer
from benchmarks.peers.programs import cpu_s, resident_bytes, running
from benchmarks.peers.scores import Scores, difference, first_scores
from benchmarks.place import PARTITIONS, Place
from benchmarks.processes import BenchmarkError, Process, start
from stream_infer.processes import wait_until

KEYS = 5_000
EVENTS_MAX = 1_200_000
COMPARED = 1_000
"""The first events of the backlog, of few accounts, whose scores are compared with ours."""
COMPARED_EACH = COMPARED // PARTITIONS // 2
COMPARED_KEYS = 100
OURS_MAX_S = 60.0
THEIRS_MAX_S = 5.0
"""By then they are there already."""
MEASURED_MAX_S = 12.0
SILENCE_MAX_S = 60.0
RATE_PER_S = 2_000
STARTING_RATE_PER_S = 200
START_MAX_S = 60.0
WARM_UP_MIN_S = 15.0
"""Before its latency is measured, a peer runs at the rate for so long at least: the Java virtual
machine compiles what it runs, and is far slower until then."""

Run = dict[str, tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """A topic with that many events, and our scores of the first ones."""

    topic: str
    total: int
    ours: Scores


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    committed: int
    cpu_s: float


@contextlib.contextmanager
def backlog(place: Place, options: Options) -> Iterator[Backlog]:
    """Make the events that all stream peers read, and let our worker score the first."""
    place.plan(KEYS)
    topic = f"peers_{uuid.uuid4().hex[:8]}"
    random = np.random.default_rng(5)
    first = random.integers(0, COMPARED_KEYS, COMPARED)
    events = min(options.events, EVENTS_MAX)
    numbers = np.concatenate([first, numbers_of(Keys(KEYS), 0, events, seed=1)])
    place.create({topic: PARTITIONS})
    produce(place, topic, numbers, seed=1)
    try:
        yield Backlog(topic, len(numbers), _our_scores(place, topic))
    finally:
        place.kafka.delete_topics([topic])


def _our_scores(place: Place, topic: str) -> Scores:
    name = place.job(KEYS)
    worker = start(place, "worker", name, topic)
    try:
        worker.until("reading ")
        found = first_scores(place, f"{name}.predictions", COMPARED_EACH, OURS_MAX_S)
        worker.stop()
    finally:
        worker.process.kill()
        place.forget(name)
    if not found:
        raise BenchmarkError("our own worker gave no scores to compare with")
    return found


def through_backlog(place: Place, peer: Peer, mode: Mode, events: Backlog) -> Run:
    """Measure a peer after its warm-up until the backlog or the time ends."""
    name = _name(peer)
    place.create({f"{name}.results": PARTITIONS})
    with contextlib.ExitStack() as stack:
        stack.callback(_forget, place, name)
        told = _told(name, events.topic)
        peer_process = stack.enter_context(running(place, peer, mode, settings=told))
        progress = Progress(place, name, events.topic)
        stack.callback(progress.close)
        samples = _followed(peer_process, progress, events.total, peer.warm_up_s)
        memory = resident_bytes(peer_process.pid)
        run = _figures(samples, peer.warm_up_s)
        run["memory"] = (memory / 1e6, "MB")
        if mode.compared:
            theirs = first_scores(place, f"{name}.results", COMPARED_EACH, THEIRS_MAX_S)
            compared, apart = difference(events.ours, theirs)
            run["scores compared"] = (compared, "")
            run["apart from ours, at most"] = (apart, "")
    return run


def _followed(process: Process, progress: Progress, total: int, warm_up_s: float) -> list[_Sample]:
    """Sample from the first commit; raises BenchmarkError when nothing moves for a minute."""
    samples: list[_Sample] = []
    moved_s = time.monotonic()
    for position in progress.watch(total):
        now_s = time.monotonic()
        if process.process.poll() is not None or now_s - moved_s > SILENCE_MAX_S:
            at = samples[-1].committed if samples else 0
            raise process.failure(f"stands at {at:,} of {total:,} events")
        if position > 0:
            moved_s = now_s
            samples.append(_Sample(now_s, position, cpu_s(process.pid)))
        if samples and now_s - samples[0].at_s > warm_up_s + MEASURED_MAX_S:
            break
    return samples


def _figures(samples: Sequence[_Sample], warm_up_s: float) -> Run:
    measured = [sample for sample in samples if sample.at_s >= samples[0].at_s + warm_up_s]
    if len(measured) < 2:
        # Through before it was warm: what there is.
        measured = list(samples[len(samples) // 2 - 1 :])
    if len(measured) < 2:
        raise BenchmarkError("fewer than two commits were seen: take more events")
    first, last = measured[0], measured[-1]
    events, seconds = last.committed - first.committed, last.at_s - first.at_s
    return {
        "throughput": (events / seconds, "/s"),
        "CPU": ((last.cpu_s - first.cpu_s) * 1e6 / events, "µs each"),
        "measured": (seconds, "s"),
    }


def at_rate(place: Place, peer: Peer, mode: Mode, options: Options) -> Run:
    """Measure a peer's latency at the steady rate, once it has begun to work and is warm.

    Results go out at once, without lingering. Raises BenchmarkError where they do not come.
    """
    name = _name(peer)
    topic, results = f"{name}.events", f"{name}.results"
    place.create({topic: PARTITIONS, results: PARTITIONS})
    output = place.folder / f"{name}.npy"
    with contextlib.ExitStack() as stack:
        stack.callback(_forget, place, name)
        told = {**_told(name, topic), "LINGER_MS": "0"}
        stack.enter_context(running(place, peer, mode, settings=told))
        receiver = receive(place, results, output)
        stack.callback(receiver.kill)
        sent = finished(send(place, topic, STARTING_RATE_PER_S, 1.0))["sent"]
        if not wait_until(lambda: place.records(results) >= sent, timeout_s=START_MAX_S):
            raise BenchmarkError(f"no results within {START_MAX_S:.0f} s")
        warm_up_s = max(options.warm_up_s, peer.warm_up_s, min(WARM_UP_MIN_S, options.seconds * 2))
        said = finished(send(place, topic, RATE_PER_S, warm_up_s + options.seconds))
        sent += said["sent"]
        settle(place, results, sent)
        receiver.stop()
    times = np.load(output)
    missing = sent - len(times)
    if missing > 0:
        raise BenchmarkError(f"{missing:,.0f} of {sent:,.0f} results did not come in time")
    measured = times[times[:, 0] >= said["start_us"] + warm_up_s * 1e6]
    figures = percentiles(measured[:, 1] - measured[:, 0])
    return {name: figures[name] for name in ("p50", "p99")}


def _name(peer: Peer) -> str:
    return f"{peer.key}_{uuid.uuid4().hex[:8]}"


def _told(name: str, topic: str) -> dict[str, str]:
    """The group is called as ours would be, so that `Progress` finds it."""
    return {"GROUP": f"stream-infer.{name}", "EVENTS": topic, "RESULTS": f"{name}.results"}


def _forget(place: Place, name: str) -> None:
    """Remove the topics made for a peer and by it."""
    mine = [topic for topic in place.kafka.topics() if name in topic]
    if mine:
        place.kafka.delete_topics(mine)
