"""Two logs as one, in plain Python: which record comes next, and what a sale sees of reports."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stream_infer.core.checks import EARLIEST_US
from tests.faults.events import SECOND_US
from tests.faults.fold import Folded, Record, acceptable
from tests.faults.shop import HORIZON_S, REPORTS_LATENESS_S, Report, sky
from tests.laws.oracle import Expected, Fact, answers

TYPE_FIELDS = {"Report": frozenset(Report.__struct_fields__)}


def event_time_us(record: Record, name: str) -> int | None:
    """Return the event time in a record's field, None where it has none that can be accepted.

    What else is wrong with the record does not matter: by its time it has its place in the log.
    """
    try:
        event = json.loads(record.value)
        at = datetime.fromisoformat(event[name])
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    if at.tzinfo is None:
        return None
    time_us = round(at.timestamp() * 1e6)
    ahead_us = time_us - record.timestamp_ms * 1000
    accepted = time_us >= EARLIEST_US and ahead_us <= HORIZON_S * SECOND_US
    return time_us if accepted else None


def merge(logs: Sequence[Sequence[Record]], time_fields: Sequence[str]) -> list[tuple[int, Record]]:
    """Return all records, each with the number of its log: by event time, of equals the first log.

    Within a log the order stays; a record without an acceptable time waits for nothing.
    """
    times = [
        [event_time_us(record, name) or 0 for record in log]
        for log, name in zip(logs, time_fields, strict=True)
    ]
    merged: list[tuple[int, Record]] = []
    at = [0] * len(logs)
    while heads := [(times[n][at[n]], n) for n in range(len(logs)) if at[n] < len(logs[n])]:
        _, number = min(heads)
        merged.append((number, logs[number][at[number]]))
        at[number] += 1
    return merged


@dataclass(slots=True)
class Sky:
    """What sales see of the reports: by the offset of the sale; and how often it was delicate."""

    features: dict[int, dict[str, Expected]] = field(default_factory=dict)
    ties: int = 0
    """Sales with a report of their shop at their very time, which they must not see."""
    behind: int = 0
    """Sales so far behind their shop's newest report that they see it as of a later time."""


def fold_sky(
    merged: Sequence[tuple[int, Record]], sales: Folded, reports: Mapping[int, dict[str, Any]]
) -> Sky:
    """Fold one partition number's merged log; `reports` are those that count, by offset."""
    found = Sky()
    facts: dict[str, list[Fact]] = defaultdict(list)
    seen_at: dict[str, set[int]] = defaultdict(set)
    for report in reports.values():
        seen_at[report["shop"]].add(report["time_us"])
    for number, record in merged:
        if number == 1:
            if (report := reports.get(record.offset)) is not None:
                shop = report["shop"]
                facts[shop].append(Fact(report["time_us"], "Report", shop, report))
        elif sales.ends[record.offset] == "prediction":
            sale = acceptable(record)
            assert sale is not None
            shop, time_us = sale["shop"], sale["time_us"]
            before = facts[shop]
            newest_us = max((fact.time_us for fact in before), default=0)
            as_of_us = max(time_us, newest_us - REPORTS_LATENESS_S * SECOND_US)
            log = [*before, Fact(as_of_us, "Sale", shop, {})]
            values = answers(sky.features, TYPE_FIELDS, {}, log, len(before))
            found.features[record.offset] = {f"sky__{n}": value for n, value in values.items()}
            found.ties += time_us in seen_at[shop]
            found.behind += as_of_us > time_us
    return found
