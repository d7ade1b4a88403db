"""What ends as a dead letter: results that do not fit, and events that a fix makes acceptable."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.faults.events import LONG_ID, LONG_NOTE, Rates
from tests.faults.fold import Record, fold_log
from tests.faults.harness import ROOT, Run, ScenarioError, Worker
from tests.faults.reading import log_ends
from tests.faults.verifier import Figures, Judge, read_source

RATE = 800.0
PROGRAM = (sys.executable, "-m", "stream_infer.cli")
LIMIT_BYTES = 2_500
REFUSED = r"^stream_infer_stream_refused_total{.*} (\S+)$"


def message_too_large(run: Run) -> Figures:
    """One result in a hundred exceeds its topic's limit: a dead letter; nothing else is lost."""
    limit_messages(run, f"{run.name}.predictions", LIMIT_BYTES)
    worker = run.worker()
    run.until_reading(worker)
    run.generate(6_000, RATE, Rates(long_ids=0.01))
    run.until_generated()
    run.until_done()
    ends = run.ends(worker)
    refused = sum(int(float(n)) for n in re.findall(REFUSED, run.metrics(worker), re.M))
    figures = run.finish(
        worker, judge=Judge(too_large=lambda record: LONG_ID.encode() in record.value)
    )
    counted = {"prediction": figures.predictions, "dead_letter": figures.dead_letters}
    figures.notes |= {"too_large": refused, "counted": ends}
    if not refused or any(ends[name] != number for name, number in counted.items()):
        figures.failures.append(f"counted {ends} and {refused} refused, but there are {counted}")
    return figures


def limit_messages(run: Run, topic: str, size_bytes: int) -> None:
    """Set the largest batch that a topic accepts."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    resource.add_incremental_config(
        ConfigEntry(
            "max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET
        )
    )
    admin = AdminClient({"bootstrap.servers": run.broker, "log_level": 0})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=30)


def poison_replayed(run: Run) -> Figures:
    """Poison, then a topology that accepts some of it, and a replay of the dead letters, twice.

    A worker that is not disturbed reads the same log, and is fixed at the same offset.
    """
    calm = f"{run.name}_calm"
    run.prepare(calm)
    first = [run.worker(), run.worker(topology=calm)]
    run.generate(5_000, RATE * 2, Rates(duplicates=0.0, late=0.0, long_notes=0.02, step_us=2_000.0))
    run.until_generated()
    for worker, name in zip(first, (run.name, calm), strict=True):
        run.until_done(name)
        stop(run, worker)
    fixed_from = log_ends(run.broker, run.source)
    fixed = {"FIXED": "1"}
    second = [run.worker(test=fixed), run.worker(topology=calm, test=fixed)]
    run.until_reading(second[0])
    with run.fault():
        replays = [replay(run), replay(run)]
    for worker, name in zip(second, (run.name, calm), strict=True):
        run.until_done(name)
        stop(run, worker)

    def before_the_fix(record: Record) -> bool:
        return is_long(record) and record.offset < fixed_from[record.partition]

    figures = run.judged(calm, Judge(refused=before_the_fix))
    letters, ends = put_through(run, fixed_from, before_the_fix)
    figures.notes |= {"long_notes": letters, "replays": replays, "replayed_ends": dict(ends)}
    wanted = [{"replayed": letters, "before": 0}, {"replayed": 0, "before": letters}]
    if not letters or replays != wanted:
        figures.failures.append(f"{letters} letters, but the replays sent {replays}")
    if ends.total() != letters or ends["prediction"] != letters:
        figures.failures.append(f"of {letters} letters, {dict(ends)} came through")
    return figures


def is_long(record: Record) -> bool:
    """Whether a record is refused without the fix."""
    return LONG_NOTE.encode() in record.value


def replay(run: Run) -> dict[str, int]:
    """Replay the letters that the fix concerns; how many were sent, now and before."""
    done = subprocess.run(
        [*PROGRAM, "dlq", "replay", "tests.faults.shop", "--reason", "note", "--json"],
        cwd=ROOT,
        env={
            **os.environ,
            "STREAM_INFER_BROKER": run.broker,
            "STREAM_INFER_TEST_TOPOLOGY": run.name,
            "STREAM_INFER_TEST_SOURCE": run.source,
            "STREAM_INFER_TEST_FIXED": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise ScenarioError(f"the replay ended with {done.returncode}: {done.stderr[-600:]}")
    said = json.loads(done.stdout)
    return {"replayed": said["replayed"], "before": said["replayed_before"]}


def put_through(
    run: Run, fixed_from: dict[int, int], before_the_fix: Callable[[Record], bool]
) -> tuple[int, Counter[str]]:
    """Return how many letters there were, and the ends of the records that a replay made."""
    logs = read_source(run.broker, run.source)
    letters, ends = 0, Counter[str]()
    for number, records in logs.items():
        folded = fold_log(records, before_the_fix, features=False)
        letters += sum(before_the_fix(record) for record in records)
        new = (record for record in records if record.offset >= fixed_from[number])
        ends.update(folded.ends[record.offset] for record in new)
    return letters, ends


def stop(run: Run, worker: Worker) -> None:
    """Stop a worker; it must drain."""
    if (code := worker.stop()) != 0:
        run.figures.failures.append(f"a worker ended with {code}: {worker.log}")
