"""A load of HTTP requests, a process of its own: `python -m benchmarks.load`.

Closed loop (`--rate 0`): each connection asks again as soon as it is answered. Open loop: request n
is due at start + n / rate whatever the server does, on a connection that is free, else on a new
one; its time counts from when it was due, and one that is never answered counts with its age at the
end. One thread, prepared bytes, no library between: its own processor time per request, and how far
it was behind its schedule itself, are among what it prints, as one JSON object.
"""

import argparse
import contextlib
import gc
import json
import resource
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.wire import answer_of, begin_to_connect, connect, predict_requests

ACCOUNTS = 5_000
READY_FOR_S = 0.02
"""An open loop begins with as many connections as it needs where answers take that long: to make
them all at once is another load than a rate of requests."""
SLEEP_MIN_S = 0.00005
TURN_S = 0.0005
"""How long it sleeps where that many requests come due in the time: turning round and round, it
would take the core that it shares with the stores. Answers are heard so much later, too."""


class Load:
    """Connections, what each waits for, and what was answered."""

    def __init__(self, port: int, requests: list[bytes], connections_max: int) -> None:
        self.port = port
        self.requests = requests
        self.connections_max = connections_max
        self.poll = select.epoll()
        self.open: dict[int, socket.socket] = {}
        self.free: list[int] = []
        self.due_s: dict[int, float] = {}
        self.parts: dict[int, bytes] = {}
        self.unsent: dict[int, bytes] = {}
        self.sent = 0
        self.refused = 0
        self.behind_s: list[float] = []
        """How long after it was due each turn came to what it had to send, in an open loop."""
        self.answers: list[tuple[float, float, int]] = []
        """When each was due, when it was answered, its status."""

    def take(self) -> int | None:
        """A free connection, else a new one, else None."""
        if self.free:
            return self.free.pop()
        if len(self.open) >= self.connections_max:
            return None
        # Without waiting: a server that is slow to accept must not stop the load.
        made = begin_to_connect(self.port)
        number = made.fileno()
        self.open[number] = made
        self.poll.register(number, select.EPOLLIN)
        return number

    def get_ready(self, connections: int) -> None:
        """Make connections that are free."""
        for _ in range(connections):
            made = connect(self.port)
            made.setblocking(False)
            self.open[made.fileno()] = made
            self.poll.register(made.fileno(), select.EPOLLIN)
            self.free.append(made.fileno())

    def ask(self, number: int, due_s: float) -> None:
        """Send the next request on a connection."""
        request = self.requests[self.sent % len(self.requests)]
        self.sent += 1
        self.due_s[number] = due_s
        try:
            # Some hundred bytes on a connection with nothing under way: they always fit.
            self.open[number].send(request)
        except BlockingIOError:  # It is not connected yet.
            self.unsent[number] = request
            self.poll.modify(number, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._forget(number)

    def receive(self, wait_s: float) -> list[int]:
        """Wait for answers at most that long; return the connections that are free again."""
        # epoll alone counts in milliseconds.
        if wait_s > 0 and not select.select([self.poll], [], [], wait_s)[0]:
            return []
        done = []
        for number, events in self.poll.poll(0):
            if events & select.EPOLLOUT and not events & (select.EPOLLERR | select.EPOLLHUP):
                self.poll.modify(number, select.EPOLLIN)
                self.open[number].send(self.unsent.pop(number))
                continue
            data = b""
            with contextlib.suppress(OSError):
                data = self.open[number].recv(65_536)
            if not data:
                self._forget(number)
                continue
            if number in self.parts:
                data = self.parts.pop(number) + data
            answer = answer_of(data)
            if answer is None:
                self.parts[number] = data
                continue
            due_s = self.due_s.pop(number)
            self.answers.append((due_s, time.perf_counter(), answer[0]))
            done.append(number)
        return done

    def _forget(self, number: int) -> None:
        self.poll.unregister(number)
        self.open.pop(number).close()
        self.parts.pop(number, None)
        self.unsent.pop(number, None)
        if self.due_s.pop(number, None) is not None:
            self.refused += 1
        elif number in self.free:
            self.free.remove(number)


def closed_loop(load: Load, connections: int, end_s: float) -> None:
    """Keep every connection busy until the end."""
    for _ in range(connections):
        number = load.take()
        assert number is not None
        load.ask(number, time.perf_counter())
    while (now_s := time.perf_counter()) < end_s:
        for number in load.receive(min(0.1, end_s - now_s)):
            load.ask(number, time.perf_counter())
        while len(load.open) < connections and (number := load.take()) is not None:
            load.ask(number, time.perf_counter())


def open_loop(load: Load, rate: float, start_s: float, end_s: float) -> Sequence[float]:
    """Send each request when it is due, until the end; return when those were due that waited."""
    waiting: deque[float] = deque()
    number_due = 0
    pause_s = TURN_S if rate * TURN_S > 1 else 0.0
    while (now_s := time.perf_counter()) < end_s:
        first = number_due
        while (due_s := start_s + number_due / rate) <= now_s:
            waiting.append(due_s)
            number_due += 1
        if number_due > first:
            load.behind_s.append(now_s - start_s - first / rate)
        while waiting and (number := load.take()) is not None:
            load.ask(number, waiting.popleft())
        if pause_s:
            time.sleep(pause_s)
        ahead_s = min(due_s, end_s) - time.perf_counter()
        load.free.extend(load.receive(ahead_s if ahead_s > SLEEP_MIN_S else 0.0))
    return waiting


def main() -> int:
    """Make the load; print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topology", default="", help="whose predictions to ask for")
    parser.add_argument("--requests", type=Path, help="other requests: a file, a JSON list")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: closed loop")
    parser.add_argument("--connections", type=int, default=64, help="in a closed loop")
    parser.add_argument("--connections-max", type=int, default=3_000, help="in an open loop")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up-s", type=float, default=1.0)
    options = parser.parse_args()
    if options.requests is not None:
        requests = [text.encode() for text in json.loads(options.requests.read_text())]
    else:
        requests = predict_requests(options.topology, range(ACCOUNTS), time.time_ns() // 1000)
    load = Load(options.port, requests, options.connections_max)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    load.get_ready(min(int(options.rate * READY_FOR_S), options.connections_max))
    start_s, before_s = time.perf_counter(), time.process_time()
    end_s = start_s + options.warm_up_s + options.seconds
    unsent: Sequence[float] = ()
    if options.rate:
        unsent = open_loop(load, options.rate, start_s, end_s)
    else:
        closed_loop(load, options.connections, end_s)
    used_s = time.process_time() - before_s
    from_s = start_s + options.warm_up_s
    measured = [answer for answer in load.answers if answer[0] >= from_s]
    missing = [due_s for due_s in (*unsent, *load.due_s.values()) if due_s >= from_s]
    by_status = Counter(status for _, _, status in measured)
    accepted = [b - a for a, b, status in measured if status == 200]
    refused_ms = np.array([b - a for a, b, status in measured if status == 503]) * 1e3
    # A closed loop has always some under way: they wait no longer than the others.
    took_ms = np.array([*accepted, *(end_s - due_s for due_s in missing if options.rate)]) * 1e3
    if not len(took_ms):
        sys.exit("no request was answered with 200")
    print(
        json.dumps(
            {
                "accepted_per_s": by_status[200] / options.seconds,
                "shed_per_s": by_status[503] / options.seconds,
                "others": len(measured) - by_status[200] - by_status[503],
                "unanswered": len(missing) if options.rate else 0,
                "answers": [sum(b == kind for _, _, b in load.answers) for kind in (200, 503)],
                "closed": load.refused,
                "p50_ms": float(np.percentile(took_ms, 50)),
                "p99_ms": float(np.percentile(took_ms, 99)),
                "shed_p99_ms": float(np.percentile(refused_ms, 99)) if len(refused_ms) else None,
                "behind_p99_ms": float(np.percentile(load.behind_s, 99)) * 1e3
                if load.behind_s
                else None,
                "load_cpu_us": used_s * 1e6 / max(len(load.answers), 1),
                "load_busy": used_s / (options.warm_up_s + options.seconds),
                "connections": len(load.open),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
