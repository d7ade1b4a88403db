"""Servers, workers and generator of a scenario, all of them real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from stream_infer.processes import Guarded, free_port, wait_until
from tests.faults.bench import Bench
from tests.faults.events import Rates
from tests.faults.models import save_models
from tests.faults.reading import PARTITIONS, committed, log_ends, stored_offsets
from tests.faults.verifier import AS_USUAL, Fault, Figures, Judge, Verifier

ROOT = Path(__file__).parents[2]
START_MAX_S = 60.0
FINISH_MAX_S = 180.0
STEP_S = 0.05
CONSUMED = r"^stream_infer_consumed_events_total{.*} (\S+)$"
SESSION_S = 3.0
QUICK = {
    "session_timeout_s": SESSION_S,
    "heartbeat_interval_s": 0.3,
    "retry_max_s": 0.5,
    "request_timeout_s": 5,
    "drain_timeout_s": 10,
    "partitions": PARTITIONS,
}
"""Settings of every worker: a session short enough that losing one is quickly noticed."""


class ScenarioError(Exception):
    """A scenario did not come to its end; the message says where it stood."""


class Worker:
    """One worker process and its log."""

    def __init__(self, process: Guarded, log: Path, metrics_port: int) -> None:
        self.process = process
        self.log = log
        self.metrics_port = metrics_port

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker itself."""
        os.kill(self.process.pid, number)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self, text: str) -> bool:
        """Whether its log has such a text."""
        return text in self.log.read_text(errors="replace")

    def partitions(self) -> set[int]:
        """The partitions that its log says it began to read."""
        found = re.findall(r"/(\d+) from \d+", self.log.read_text(errors="replace"))
        return set(map(int, found))

    def stop(self) -> int:
        """Stop it with SIGTERM; its exit code."""
        return self.process.stop()


class Run:
    """One scenario under way: a topic and a topology of its own, and what runs on them."""

    def __init__(self, bench: Bench, scenario: str, seed: int) -> None:
        self.bench = bench
        self.random = Random(seed)
        self.figures = Figures(scenario, seed)
        self.name = f"{re.sub(r'[^a-z]', '_', scenario)}_{seed}_{uuid.uuid4().hex[:6]}"
        self.source = f"{self.name}.sales"
        self.directory = bench.directory / self.name
        self.directory.mkdir(parents=True)
        self.redis_url = bench.redis.url
        self.store_url = bench.redis.url
        """Where the state is, whatever lies between it and the workers."""
        self.broker = bench.kafka.bootstrap
        self.faults: list[Fault] = []
        self.workers: list[Worker] = []
        self.settings: dict[str, object] = {}
        """Settings of all its workers, over those of `QUICK`."""
        self.finish_max_s = FINISH_MAX_S
        self._generator: Guarded | None = None
        self._made = 0
        self._total = 0
        self.prepare(self.name)
        bench.kafka.create_topics({self.source: PARTITIONS}, **{"retention.ms": "-1"})

    def prepare(self, topology: str) -> None:
        """Store the models of a topology, and make its result topics."""
        save_models(self.bench.models, topology)
        kinds = ("predictions", "dead_letters", "outcomes")
        # By the broker's clock: a worker's may be wrong.
        self.bench.kafka.create_topics(
            {f"{topology}.{kind}": PARTITIONS for kind in kinds},
            **{"message.timestamp.type": "LogAppendTime"},
        )

    # -- processes

    def worker(
        self,
        *,
        failpoints: str = "",
        topology: str = "",
        test: Mapping[str, str] | None = None,
        stderr: int | None = None,
        program: Sequence[str] = ("worker",),
        **settings: object,
    ) -> Worker:
        """Start a worker; settings are those of stream_infer.settings.

        `test` are variables `STREAM_INFER_TEST_…` for tests.faults.shop; `stderr` takes the log
        elsewhere; `program` is another command of stream-infer than `worker`.
        """
        self._made += 1
        log = self.directory / f"{program[0]}-{self._made}.log"
        values = {
            **QUICK,
            "metrics_port": free_port(),
            "broker": self.broker,
            "redis": self.redis_url,
            "models_dir": self.bench.models,
            **self.settings,
            **settings,
        }
        environment = {
            **os.environ,
            **{f"STREAM_INFER_{name.upper()}": str(value) for name, value in values.items()},
            "STREAM_INFER_TEST_TOPOLOGY": topology or self.name,
            "STREAM_INFER_TEST_SOURCE": self.source,
            "STREAM_INFER_FAILPOINTS": failpoints,
            **{f"STREAM_INFER_TEST_{name}": text for name, text in (test or {}).items()},
        }
        command = [sys.executable, "-m", "stream_infer.cli", *program, "tests.faults.shop"]
        with log.open("ab") as output:
            process = Guarded(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT if stderr is None else stderr,
                grace_s=30,
            )
        worker = Worker(process, log, int(str(values["metrics_port"])))
        self.workers.append(worker)
        return worker

    def generate(self, count: int, rate: float, rates: Rates | None = None) -> None:
        """Start to produce `count` events, `rate` a second."""
        self._total = count
        options = {"broker": self.broker, "topic": self.source, "seed": self.figures.seed}
        options |= {"count": count, "rate": rate, **(rates or Rates())._asdict()}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        with (self.directory / "generator.log").open("wb") as output:
            self._generator = Guarded(
                [sys.executable, "-m", "tests.faults.generator", *arguments],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def close(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            worker.process.kill()
        if self._generator is not None:
            self._generator.kill()

    # -- waiting

    def until(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait for a condition; raises ScenarioError after the timeout."""
        if not wait_until(condition, timeout_s=timeout_s, interval_s=STEP_S):
            tails = [f"{w.log}: {w.log.read_text()[-600:]}" for w in self.workers[-3:]]
            raise ScenarioError(f"not within {timeout_s:.0f} s: {what}\n" + "\n".join(tails))

    def until_reading(self, *workers: Worker) -> None:
        """Wait until these workers have all partitions between them."""

        def reading() -> bool:
            self._must_run(workers)
            found = [worker.partitions() for worker in workers]
            return set().union(*found) == set(range(PARTITIONS)) and all(found)

        self.until("workers read all partitions", reading, START_MAX_S)

    def _must_run(self, workers: tuple[Worker, ...]) -> None:
        for worker in workers:
            if not worker.running:
                raise ScenarioError(f"a worker ended: {worker.log.read_text()[-600:]}")

    def until_sent(self, count: int) -> None:
        """Wait until the source topic holds this many records, or all that will be sent."""
        count = min(count, self._total)
        self.until(
            f"{count} records sent",
            lambda: self.sent() >= count,
            self.finish_max_s,
        )

    def sent(self) -> int:
        """How many records the source topic holds."""
        return sum(log_ends(self.broker, self.source).values())

    def stop_generating(self) -> None:
        """Let the generator send no more; for scenarios that cannot say how long they take."""
        assert self._generator is not None
        os.kill(self._generator.pid, signal.SIGTERM)

    def until_generated(self) -> None:
        """Wait for the generator's end; it must have got all acknowledged."""
        generator = self._generator
        assert generator is not None
        self.until("all is generated", lambda: generator.poll() is not None, self.finish_max_s)
        text = (self.directory / "generator.log").read_text()
        if generator.poll() != 0:
            raise ScenarioError(f"the generator failed: {text[-600:]}")
        self.figures.notes["acknowledged"] = json.loads(text.splitlines()[-1])["sent"]

    def until_done(self, topology: str = "") -> None:
        """Wait until everything is folded, stored and committed."""
        name = topology or self.name
        ends = log_ends(self.broker, self.source)

        def done() -> bool:
            return (
                stored_offsets(self.store_url, name) == ends
                and committed(self.broker, f"stream-infer.{name}", self.source) == ends
            )

        self.until(f"{name} has done everything", done, self.finish_max_s)

    def metrics(self, worker: Worker) -> str:
        """Return a worker's metrics page."""
        page = f"http://127.0.0.1:{worker.metrics_port}/metrics"
        with urllib.request.urlopen(page, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def ends(self, worker: Worker) -> dict[str, int]:
        """How many events a worker counted, by their end (see `metrics_port`)."""
        text = self.metrics(worker)
        found = re.findall(r'^stream_infer_events_total{.*end="(\w+)".*} (\S+)$', text, re.M)
        found += [("consumed", n) for n in re.findall(CONSUMED, text, re.M)]
        return {end: int(float(number)) for end, number in found}

    # -- the end

    @contextmanager
    def fault(self) -> Iterator[None]:
        """Note when something is wrong."""
        start_ms = now_ms()
        yield
        self.faults.append(Fault(start_ms, now_ms()))

    def finish(self, *running: Worker, judge: Judge = AS_USUAL) -> Figures:
        """Let the work end, stop the workers, judge."""
        self.until_generated()
        self.until_done()
        for worker in running:
            # All may have been done before it began: it must have come far enough to be stopped.
            self.until("a worker works", lambda w=worker: w.said("working on"), START_MAX_S)  # type: ignore[misc]
            if (code := worker.stop()) != 0:
                self.figures.failures.append(f"a worker ended with {code}: {worker.log}")
        calm = f"{self.name}_calm"
        self.prepare(calm)
        reference = self.worker(topology=calm)
        self.until_done(calm)
        if (code := reference.stop()) != 0:
            self.figures.failures.append(f"the reference worker ended with {code}")
        return self.judged(calm, judge)

    def judged(self, calm: str, judge: Judge = AS_USUAL) -> Figures:
        """Judge what came out, beside what an undisturbed worker stored."""
        verifier = Verifier(self.broker, self.store_url, self.source, self.name, calm, judge)
        figures = verifier.judge(self.figures, self.faults)
        # More than was acknowledged: records whose acknowledgement a producer lost are in the log
        # too, perhaps twice; what is in the log counts.
        if figures.sent < figures.notes["acknowledged"]:
            figures.failures.append("the log lacks acknowledged records")
        return figures


def now_ms() -> int:
    """The wall clock in milliseconds."""
    return time.time_ns() // 1_000_000
