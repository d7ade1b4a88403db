"""The second stream of the battery: reports about shops, made up from a seed, and folded alone."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from tests.faults.events import SECOND_US, SHOPS, Made
from tests.faults.fold import Folded, Record
from tests.faults.merged import event_time_us
from tests.faults.shop import REPORTS_LATENESS_S

REQUIRED = {"shop", "seen_at"}
POISON = [
    b"{",
    b"",
    b'{"type":"hail","shop":"shop-1","seen_at":"2024-01-01T00:05:00Z"}',
    b'{"type":"report","seen_at":"2024-01-01T00:03:00Z"}',
    b'{"type":"report","shop":"shop-1","seen_at":"2024-01-01T00:01:00"}',
    b'{"type":"report","shop":"shop-1","seen_at":"1970-01-01T00:00:00Z"}',
    b'{"type":"report","shop":"shop-1","seen_at":"2024-01-01T09:00:00Z"}',
    b'{"type":"report","shop":"shop-1","seen_at":"2024-01-01T00:02:00Z","gust":{}}',
]
"""Some have a time, by which they take their place in the merged log before they are refused."""


def reports(seed: int, count: int, sales: Sequence[Made]) -> Iterator[Made]:
    """Make `count` records over the time of `sales`; some at the very time of a shop's sale."""
    random = Random(seed + 1)
    recent: list[Made] = []
    for number in range(count):
        place = number * len(sales) // count
        now_us = sales[place].timestamp_ms * 1000
        at_us = now_us - random.randrange(0, 50 * SECOND_US)
        shop = f"shop-{random.randrange(SHOPS)}"
        if random.random() < 0.02:
            at_us = now_us - random.randrange(100, 3_000) * SECOND_US
        elif random.random() < 0.25 and (same := _place(random.choice(sales[place:][:50]))):
            shop, at_us = same
        if recent and random.random() < 0.02:
            made = random.choice(recent)
        elif random.random() < 0.02:
            made = Made(shop.encode(), random.choice(POISON), now_us // 1000)
        else:
            event = {
                "type": "report",
                "shop": shop,
                "seen_at": datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(),
                "rain_mm": random.choice([None, round(random.uniform(0, 9), 1)]),
                "gust": random.choice([None, round(random.uniform(0, 90), 1)]),
            }
            made = Made(shop.encode(), json.dumps(event).encode(), now_us // 1000)
            recent = [*recent[-50:], made]
        yield made


def _place(made: Made) -> tuple[str, int] | None:
    """Return shop and event time of a sale or refund, None of what is neither."""
    record = Record(0, made.timestamp_ms, 0, made.value)
    time_us = event_time_us(record, "at")
    return None if time_us is None else (json.loads(made.value)["shop"], time_us)


def fold_reports(records: Sequence[Record]) -> tuple[Folded, dict[int, dict[str, Any]]]:
    """Fold one partition's reports in offset order: their ends, and by offset those that count.

    Reports have no event id: each record counts, and one that is folded again shows.
    """
    folded = Folded()
    counting: dict[int, dict[str, Any]] = {}
    for record in records:
        report = _acceptable(record)
        if report is None:
            folded.ends[record.offset] = "dead letter"
            continue
        time_us = report["time_us"]
        newest_us, folded.newest_us = folded.newest_us, max(folded.newest_us, time_us)
        if time_us < newest_us - REPORTS_LATENESS_S * SECOND_US:
            folded.ends[record.offset] = "late"
            continue
        folded.ends[record.offset] = "update"
        counting[record.offset] = report
    return folded, counting


def _acceptable(record: Record) -> dict[str, Any] | None:
    """Return a report with its `time_us`, None where it belongs to the dead letters."""
    time_us = event_time_us(record, "seen_at")
    if time_us is None:
        return None
    report: dict[str, Any] = json.loads(record.value)
    numbers = report.get("rain_mm"), report.get("gust")
    if not report.keys() >= REQUIRED or report["type"] != "report":
        return None
    if not all(number is None or isinstance(number, float | int) for number in numbers):
        return None
    return {**report, "time_us": time_us}
