"""The judge's merge of two logs, by hand; the battery's scenarios show the rest."""

import json

from tests.faults.events import T0_US, Rates, events
from tests.faults.fold import Record, fold_log
from tests.faults.merged import fold_sky, merge
from tests.faults.reports import fold_reports, reports


def test_of_equal_times_the_first_log_comes_first_and_no_log_changes_its_order() -> None:
    def log(field: str, *seconds: int | None) -> list[Record]:
        times = [f"2024-01-01T00:00:{second:02d}Z" if second else None for second in seconds]
        values = [json.dumps({field: time}).encode() for time in times]
        return [Record(n, T0_US // 1000, 0, value) for n, value in enumerate(values)]

    both = log("at", 10, 30, 20, 40), log("seen_at", 10, 5, None, 30, 35)
    order = [(number, record.offset) for number, record in merge(both, ("at", "seen_at"))]
    assert order == [
        *[(0, 0), (1, 0), (1, 1), (1, 2)],
        *[(0, 1), (0, 2), (1, 3), (1, 4), (0, 3)],
    ]


def test_what_sales_see_of_reports_depends_on_the_order_of_the_merged_log() -> None:
    made = list(events(1, 3_000, Rates()))
    logs = [
        [Record(n, one.timestamp_ms, 0, one.value) for n, one in enumerate(log)]
        for log in (made, reports(1, 2_000, made))
    ]
    sales, (ends, counting) = fold_log(logs[0], features=False), fold_reports(logs[1])
    assert min(map(ends.count, ("update", "late", "dead letter"))) > 10
    merged = merge(logs, ("at", "seen_at"))
    right = fold_sky(merged, sales, counting)
    swapped = merge(logs[::-1], ("seen_at", "at"))
    wrong = fold_sky([(1 - number, record) for number, record in swapped], sales, counting)
    assert min(right.ties, right.behind) > 10
    assert right.features.keys() == wrong.features.keys() == set(sales.of("prediction"))
    assert right.features != wrong.features
