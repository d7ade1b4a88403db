"""What a log must come to, folded in plain Python: each record's one end, and what it is to say."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stream_infer.core.checks import EARLIEST_US
from tests.faults.shop import HORIZON_S, LATENESS_S, by_item, by_shop
from tests.laws.oracle import Expected, Fact, answers

SECOND_US = 1_000_000
FIELDS = {
    "sale": {"sale_id", "shop", "at", "amount"},
    "refund": {"sale_id", "shop", "at", "refunded"},
}
TYPE_FIELDS = {
    "Sale": frozenset({"sale_id", "shop", "at", "amount", "item"}),
    "Refund": frozenset({"sale_id", "shop", "at", "refunded", "item"}),
}
CLASS_NAMES = {"sale": "Sale", "refund": "Refund"}


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the source topic."""

    offset: int
    timestamp_ms: int
    sent_ms: int
    value: bytes
    key: bytes = b""
    partition: int = 0


@dataclass(slots=True)
class Folded:
    """One partition: the end of each offset, the features of predictions, the pairs of outcomes."""

    ends: dict[int, str] = field(default_factory=dict)
    features: dict[int, dict[str, Expected]] = field(default_factory=dict)
    outcomes: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Offset of the later event of a pair → offset of the prediction, label."""
    seen_us: dict[str, int] = field(default_factory=dict)
    newest_us: int = 0

    def count(self, end: str) -> int:
        """Return how many records ended so."""
        return sum(found == end for found in self.ends.values())

    def of(self, end: str) -> list[int]:
        """Return the offsets that ended so."""
        return [offset for offset, found in self.ends.items() if found == end]


def fold_log(
    records: Sequence[Record],
    refused: Callable[[Record], bool] = lambda _: False,
    *,
    features: bool = True,
) -> Folded:
    """Fold one partition's log, in offset order; `refused` names further dead letters."""
    folded = Folded()
    by_shop_log: dict[str, list[Fact]] = defaultdict(list)
    by_item_log: dict[str, list[Fact]] = defaultdict(list)
    waiting: dict[tuple[str, str], tuple[int, int, float]] = {}
    for record in records:
        event = acceptable(record)
        if event is None or refused(record):
            folded.ends[record.offset] = "dead letter"
            continue
        time_us = event["time_us"]
        newest_us, folded.newest_us = folded.newest_us, max(folded.newest_us, time_us)
        if time_us < newest_us - LATENESS_S * SECOND_US:
            folded.ends[record.offset] = "late"
            continue
        kind = list(FIELDS).index(event["type"])
        identity = f"{kind}\x1f{event['sale_id']}"
        seen_us = folded.seen_us.get(identity)
        if seen_us is not None and abs(time_us - seen_us) <= HORIZON_S * SECOND_US:
            folded.ends[record.offset] = "duplicate"
            continue
        folded.seen_us[identity] = time_us
        scored = event["type"] == "sale"
        folded.ends[record.offset] = "prediction" if scored else "update"
        if features:
            found = {"amount": Expected(event.get("amount"))}
            found |= _features(by_shop, by_shop_log, event["shop"], event)
            item = event.get("item")
            key = None if item is None else f"{event['shop']}\x1f{item}"
            found |= _features(by_item, by_item_log, key, event)
            if scored:
                folded.features[record.offset] = found
        _join(folded, waiting, record.offset, event)
    return folded


def acceptable(record: Record) -> dict[str, Any] | None:
    """Return a record's event with its `time_us`, None where it belongs to the dead letters."""
    try:
        event = json.loads(record.value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or event.get("type") not in FIELDS:
        return None
    if not FIELDS[event["type"]] <= event.keys():
        return None
    number = event.get("amount", event.get("refunded"))
    at = datetime.fromisoformat(event["at"])
    if not isinstance(number, float | int) or abs(number) >= 2**40 * 1e-6 or at.tzinfo is None:
        return None
    time_us = round(at.timestamp() * 1e6)
    ahead_us = time_us - record.timestamp_ms * 1000
    if time_us < EARLIEST_US or ahead_us > HORIZON_S * SECOND_US:
        return None
    return {**event, "time_us": time_us}


def _features(
    view: Any, logs: Mapping[str, list[Fact]], key: str | None, event: dict[str, Any]
) -> dict[str, Expected]:
    """Answer a view's features for an event, and append the event to its entity's log."""
    fact = Fact(event["time_us"], CLASS_NAMES[event["type"]], key, event)
    log = [fact]
    if key is not None:
        log = logs[key]
        log.append(fact)
    if event["type"] != "sale":
        return {}
    found = answers(view.features, TYPE_FIELDS, {}, log, len(log) - 1)
    return {f"{view.name}__{name}": expected for name, expected in found.items()}


def _join(
    folded: Folded,
    waiting: dict[tuple[str, str], tuple[int, int, float]],
    offset: int,
    event: dict[str, Any],
) -> None:
    """Pair a sale with its refund, whichever comes first."""
    kind, sale_id, time_us = event["type"], event["sale_id"], event["time_us"]
    other = waiting.pop(("refund" if kind == "sale" else "sale", sale_id), None)
    number = float(event["amount"] if kind == "sale" else event["refunded"])
    if other is None:
        waiting[kind, sale_id] = offset, time_us, number
        return
    if abs(other[1] - time_us) <= HORIZON_S * SECOND_US:
        of_sale = (offset, other[2]) if kind == "sale" else (other[0], number)
        folded.outcomes[offset] = of_sale


def differs(scores: Mapping[str, float | None], features: Mapping[str, Expected]) -> list[str]:
    """Return the features of which a prediction says something else, to float32's precision."""
    wrong = []
    for name, expected in features.items():
        score = scores.get(name)
        result = math.nan if score is None else score
        if expected.value is None:
            if score is not None:
                wrong.append(name)
        elif not abs(result - expected.value) <= expected.tolerance + abs(expected.value) * 3e-7:
            wrong.append(name)
    return wrong if scores.keys() == features.keys() else sorted(features)
