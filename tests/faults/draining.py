"""The HTTP server while it drains, and while workers come and go."""

import re
import signal

from stream_infer.processes import free_port
from tests.faults.harness import Run, Worker
from tests.faults.http_load import Answers, Load
from tests.faults.verifier import Figures

RATE = 400.0
ASKED = 150.0
"""Requests a second."""
STOPS = 3
ADDRESS = r"serves .* at (http://\S+)/"


def http_drain(run: Run) -> Figures:
    """SIGTERM under load, several times: what was accepted is answered, nothing with a 5xx."""
    worker = run.worker()
    run.until_reading(worker)
    run.generate(8_000, RATE)
    farewells = 0
    for number in range(STOPS):
        server, load = serve(run)
        with load:
            answered(run, load, 200 + run.random.randrange(100))
            with run.fault():
                server.signal(signal.SIGTERM)
                run.until("the server ends", lambda s=server: not s.running, 30)
            refused = load.answers.refused
            run.until(
                "connections are refused", lambda a=load.answers, n=refused: a.refused > n, 30
            )
        check(run, server, load.stop())
        farewells += load.answers.farewells
        run.figures.notes[f"stop_{number + 1}"] = load.answers.said()
    if not farewells:
        run.figures.failures.append("no answer said that its connection closes")
    return run.finish(worker)


def http_beside_workers(run: Run) -> Figures:
    """Workers drain, die and start anew: the server answers, without a 5xx."""
    worker = run.worker(group_instance=run.name)
    run.until_reading(worker)
    run.generate(8_000, RATE)
    server, load = serve(run)
    with load:
        for number in range(2):
            answered(run, load, sum(load.answers.statuses.values()) + 200)
            with run.fault():
                worker.stop() if number == 0 else worker.process.kill()
                worker = run.worker(group_instance=run.name)
                run.until_reading(worker)
        run.until_generated()
    answers = load.stop()
    check(run, server, answers, ended=False)
    run.figures.notes["asked"] = answers.said()
    if answers.refused:
        run.figures.failures.append(f"{answers.refused} connections were refused")
    if (code := server.stop()) != 0:
        run.figures.failures.append(f"the server ended with {code}: {server.log}")
    return run.finish(worker)


def serve(run: Run, rate: float = ASKED) -> tuple[Worker, Load]:
    """Start a server; return it, and the load for it, which is not begun."""
    port = free_port()
    server = run.worker(program=("serve",), http_port=port)
    run.until("the server listens", lambda: re.search(ADDRESS, said(server)) is not None, 60)
    path = f"/v1/topologies/{run.name}/predict"
    return server, Load(f"http://127.0.0.1:{port}", path, rate)


def said(server: Worker) -> str:
    """Return what a server has written."""
    return server.log.read_text(errors="replace")


def answered(run: Run, load: Load, count: int) -> None:
    """Wait for so many answers."""
    run.until(f"{count} answers", lambda: sum(load.answers.statuses.values()) >= count, 60)


def check(run: Run, server: Worker, answers: Answers, *, ended: bool = True) -> None:
    """Fail for requests that were accepted and not answered well."""
    failures = run.figures.failures
    if answers.failed or set(answers.statuses) != {200}:
        failures.append(f"{answers.said()} {answers.texts}")
    if ended and (code := server.process.poll()) != 0:
        failures.append(f"the server ended with {code}: {server.log}")
    if "Traceback" in said(server):
        failures.append(f"the server wrote a trace: {server.log}")
