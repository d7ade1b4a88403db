"""Faults of workers whose topology has rekeyed views: each stage must lose and repeat nothing.

The judge folds the source topic, then the rekeyed topic, in plain Python; rows that do not depend
on how the source partitions are woven are compared, byte by byte, with an undisturbed worker's.
"""

import json
import math
import signal
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from tests.faults.fold import fold_log
from tests.faults.harness import FINISH_MAX_S, Run, Worker
from tests.faults.models import save_models
from tests.faults.reading import log_ends, read_topic, stored_offsets
from tests.faults.reading import stored_rows as rows_of
from tests.faults.shop import VECTOR_ACROSS, item_trend, of_item, of_sale
from tests.faults.verifier import Figures, Judge, read_source
from tests.faults.workers import noticed

RATE = 800.0
EVENTS = 9_000
REKEY = {"REKEY": "1"}
KEYS = {"item": ("sale",), "sale_id": ("sale", "refund")}
"""By which fields events are sent on, and which types: the scored one, and those of a feature."""
HALF_LIFE_US = 180_000_000


def kill(run: Run) -> Figures:
    """kill -9 at random moments under load, of a worker that runs both stages."""
    save_models(run.bench.models, run.name, VECTOR_ACROSS)
    worker = run.worker(group_instance=run.name, test=REKEY)
    run.until_reading(worker)
    run.generate(EVENTS, RATE)
    for _ in range(3):
        run.until_reading(worker)
        run.until_sent(min(run.sent() + run.random.randrange(1, 900), EVENTS))
        with run.fault():
            worker.process.kill()
            worker = run.worker(group_instance=run.name, test=REKEY)
    return finish(run, worker)


def zombie(run: Run) -> Figures:
    """A worker of both stages frozen past its session, its partitions taken over, continued."""
    save_models(run.bench.models, run.name, VECTOR_ACROSS)
    frozen, heir = run.worker(test=REKEY), run.worker(test=REKEY)
    run.until_reading(frozen, heir)
    run.generate(EVENTS, RATE)
    run.until_sent(run.random.randrange(1_000, 2_500))
    owned = frozen.partitions()
    with run.fault():
        frozen.signal(signal.SIGSTOP)
        run.until("its partitions are taken over", lambda: heir.partitions() >= owned, 60)
        run.until_sent(6_000)
        frozen.signal(signal.SIGCONT)
    run.until("it notices", lambda: noticed(frozen), 60)
    return finish(run, *(worker for worker in (frozen, heir) if worker.running))


def finish(run: Run, *running: Worker) -> Figures:
    """Let both stages end, let an undisturbed worker do the same, judge both stages."""
    run.until_generated()
    until_both_done(run, run.name)
    for worker in running:
        if (code := worker.stop()) != 0:
            run.figures.failures.append(f"a worker ended with {code}: {worker.log}")
    calm = f"{run.name}_calm"
    run.prepare(calm)
    save_models(run.bench.models, calm, VECTOR_ACROSS)
    reference = run.worker(topology=calm, test=REKEY)
    until_both_done(run, calm)
    if (code := reference.stop()) != 0:
        run.figures.failures.append(f"the reference worker ended with {code}")
    # What a repeat lacks of rekeyed views may differ: it reads rows that are newer.
    figures = run.judged(calm, Judge(unsteady=("degraded",)))
    judge_rekeyed(run, calm, figures)
    return figures


def until_both_done(run: Run, topology: str) -> None:
    """Wait until both stages have folded and stored everything."""
    run.until_done(topology)
    name = f"{topology}.rekeyed"
    ends = log_ends(run.broker, name)
    run.until(
        f"{name} is folded",
        lambda: stored_offsets(run.store_url, name) == ends,
        FINISH_MAX_S,
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A record of the rekeyed topic."""

    partition: int
    name: str
    entity: str
    source: str
    offset: int
    value: bytes


def read_rekeyed(broker: str, topology: str) -> list[Sent]:
    """Return the rekeyed log, in the order of each partition."""
    found = []
    for message in read_topic(broker, f"{topology}.rekeyed"):
        name, _, entity = message.key().decode().partition("\x1f")
        source, _, offset = dict(message.headers())["si-from"].decode().rpartition(":")
        found.append(Sent(message.partition(), name, entity, source, int(offset), message.value()))
    return found


def judge_rekeyed(run: Run, calm: str, figures: Figures) -> None:
    """Judge what was sent on, and what is stored of it."""
    log = read_rekeyed(run.broker, run.name)
    first: dict[tuple[str, int, str], Sent] = {}
    for sent in log:
        known = first.setdefault((sent.source, sent.offset, sent.name), sent)
        if known.value != sent.value or known.partition != sent.partition:
            figures.conflicting += 1
    expected = expected_events(run)
    missing, extra = expected.keys() - first.keys(), first.keys() - expected.keys()
    figures.missing += len(missing)
    figures.extra += len(extra)
    wrong = [key for key, sent in first.items() if expected.get(key, b"") != sent.value]
    figures.wrong += len(wrong)
    figures.notes |= {"sent_on": len(first), "sent_on_again": len(log) - len(first)}
    for problem, keys in (("missing", missing), ("extra", extra), ("other bytes", wrong)):
        if keys:
            figures.failures.append(f"sent on, {problem}: {sorted(keys)[:3]}")
    mine = rows_of(run.store_url, f"{run.name}.rekeyed")
    theirs = rows_of(run.store_url, f"{calm}.rekeyed")
    different = _as_calm(mine, theirs) | _marked(mine, first) | _folded(mine, list(first.values()))
    figures.state_differences += len(different)
    if different:
        figures.failures.append(f"rekeyed rows differ: {sorted(different)[:5]}")


def expected_events(run: Run) -> dict[tuple[str, int, str], bytes]:
    """Return what must be sent on: each event that counts, by each key that it has."""
    expected = {}
    for number, records in read_source(run.broker, run.source).items():
        folded = fold_log(records, features=False)
        for record in records:
            if folded.ends[record.offset] in ("prediction", "update"):
                event = json.loads(record.value)
                for name, types in KEYS.items():
                    if event.get(name) is not None and event["type"] in types:
                        place = f"{run.source}:{number}", record.offset, name
                        expected[place] = record.value
    return expected


def _as_calm(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """Compare rows that do not depend on the order among source partitions."""
    views = tuple(f":{view.name}:" for view in (of_item, of_sale))
    keys = {key for key in mine.keys() | theirs.keys() if any(view in key for view in views)}
    if not keys:
        return {"no rows"}
    return {key for key in keys if mine.get(key) != theirs.get(key)}


def _marked(mine: Mapping[str, Any], first: Mapping[tuple[str, int, str], Sent]) -> set[str]:
    """Compare how far each source partition has been folded, by each key."""
    ends: dict[str, int] = defaultdict(int)
    for sent in first.values():
        key = f"{sent.partition}}}:@marks:{sent.source}:{sent.name}"
        ends[key] = max(ends[key], sent.offset + 1)
    stored = {key: struct.unpack("<q", row)[0] for key, row in mine.items() if ":@marks:" in key}
    return {key for key in ends.keys() | stored.keys() if ends.get(key) != stored.get(key)}


def _folded(mine: Mapping[str, Any], log: list[Sent]) -> set[str]:
    """Fold the log, without its repeats, in plain Python; compare what can be read of rows."""
    different = set()
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    trends: dict[str, tuple[int, float, float]] = {}
    newest: dict[str, int] = defaultdict(int)
    for sent in log:
        event = json.loads(sent.value)
        time_us = round(datetime.fromisoformat(event["at"]).timestamp() * 1e6)
        if sent.name == "item":
            row = f"{sent.partition}}}:of_item:{sent.entity}"
            newest[row] = max(newest[row], time_us)
            if event["type"] == "sale":
                sales, amount = sums[row]
                sums[row] = sales + 1, amount + round(event["amount"] * 1e6)
                row = f"{sent.partition}}}:item_trend:{sent.entity}"
                trends[row] = _faded(trends.get(row), time_us, event["amount"])
    for row, (sales, amount) in sums.items():
        if _totals(mine.get(row), newest[row]) != (newest[row], sales, amount):
            different.add(row)
    for row, (time_us, total, weight) in trends.items():
        stored = np.frombuffer(mine.get(row, b""), item_trend.plan.row_dtype)
        close = len(stored) == 1 and all(
            math.isclose(float(stored[f"a0_{part}"][0]), value, rel_tol=1e-9, abs_tol=1e-6)
            for part, value in (("time", time_us), ("sum", total), ("weight", weight))
        )
        if not close:
            different.add(row)
    return different if len(trends) == 2 and len(sums) == 2 else {"no rows"}


def _faded(
    state: tuple[int, float, float] | None, time_us: int, value: float
) -> tuple[int, float, float]:
    """Add a value to an exponentially weighted sum and weight as of the newest value."""
    if state is None:
        return time_us, value, 1.0
    newest_us, total, weight = state
    share = 2.0 ** (-abs(time_us - newest_us) / HALF_LIFE_US)
    if time_us >= newest_us:
        return time_us, total * share + value, weight * share + 1.0
    return newest_us, total + value * share, weight + share


def _totals(row: bytes | None, newest_us: int) -> tuple[int, int, int] | None:
    """Return newest time, count and sum of all that a row of `of_item` has ever seen.

    Its cells are running sums: that of the newest tile has everything.
    """
    if row is None:
        return None
    stored = np.frombuffer(row, of_item.plan.row_dtype)[0]
    found = [int(stored["updated_us"])]
    for aggregate in of_item.plan.stored[:2]:
        ring = aggregate.ring  # type: ignore[attr-defined]
        column = f"{aggregate.name}_{aggregate.parts[0]}"  # type: ignore[attr-defined]
        found.append(int(stored[column][(newest_us // ring.tile_us) % ring.slots]))
    return found[0], found[1], found[2]
