"""A log of events made up from a seed: repeated keys, duplicates, late events, poison."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple

import msgspec

T0_US = 1_704_067_200_000_000  # 2024-01-01
SECOND_US = 1_000_000
SHOPS = 150
LONG_NOTE = "far too long a note"
LONG_ID = "€" * 450
POISON = [
    b"",
    b"{",
    b"null",
    b"\xff\xfe",
    b"[" * 2_000,
    b'{"type":"gift","shop":"shop-1"}',
    b'{"type":"sale","shop":"shop-1","at":"2024-01-01T00:00:00Z","amount":1.0}',
    b'{"type":"sale","sale_id":"p","shop":"shop-1","at":"2024-01-01T00:00:00","amount":1.0}',
    b'{"type":"sale","sale_id":"p","shop":"shop-1","at":"2024-01-01T00:00:00Z","amount":"much"}',
    b'{"type":"sale","sale_id":"p","shop":"shop-1","at":"2024-01-01T00:00:00Z","amount":1e300}',
    b'{"type":"sale","sale_id":"p","shop":"shop-1","at":"1970-01-01T00:00:00Z","amount":1.0}',
]


class Rates(NamedTuple):
    """Shares of the events that are not as they should be."""

    poison: float = 0.01
    duplicates: float = 0.02
    late: float = 0.02
    wrong_clocks: float = 0.0
    """Producers whose clock is an hour off, in either direction."""
    long_notes: float = 0.0
    """Sales with a note that is too long, unless the topology is fixed."""
    long_ids: float = 0.0
    """Sales whose id makes a result too large for a small topic."""
    step_us: float = SECOND_US / 5
    """Mean event time between two events, microseconds."""


@dataclass(frozen=True, slots=True)
class Made:
    """One record: key, value, and the timestamp it carries, in milliseconds."""

    key: bytes
    value: bytes
    timestamp_ms: int


def events(seed: int, count: int, rates: Rates) -> Iterator[Made]:
    """Make `count` records; those of a smaller count are a prefix of those of a larger one."""
    random = Random(seed)
    now_us = T0_US
    open_sales: list[tuple[str, str, str | None]] = []
    recent: list[Made] = []
    for number in range(count):
        now_us += random.randrange(0, int(2 * rates.step_us))
        at_us = now_us - random.randrange(0, 100 * SECOND_US)
        if random.random() < rates.late:
            at_us = now_us - random.randrange(150, 3_000) * SECOND_US
        if random.random() < rates.wrong_clocks:
            at_us = now_us + random.choice([-1, 1]) * 3_601 * SECOND_US
        if rates.wrong_clocks and number == count // 2:
            at_us = 4_070_908_800 * SECOND_US  # 2099
        if recent and random.random() < rates.duplicates:
            made = random.choice(recent)
        elif random.random() < rates.poison:
            key = f"shop-{random.randrange(SHOPS)}".encode()
            made = Made(key, random.choice(POISON), now_us // 1000)
        else:
            made = _event(random, number, at_us, now_us // 1000, open_sales, rates)
            recent = [*recent[-50:], made]
        yield made


def _event(
    random: Random,
    number: int,
    at_us: int,
    timestamp_ms: int,
    open_sales: list[tuple[str, str, str | None]],
    rates: Rates,
) -> Made:
    event: dict[str, object]
    at = datetime.fromtimestamp(at_us / 1e6, UTC)
    if open_sales and random.random() < 0.25:
        sale_id, shop, item = open_sales.pop(random.randrange(len(open_sales)))
        event = {"type": "refund", "refunded": round(random.uniform(0, 100), 2)}
    else:
        sale_id, shop = f"s{number}", f"shop-{random.randrange(SHOPS)}"
        item = random.choice(["x", "y", None])
        event = {"type": "sale", "amount": round(random.uniform(-50, 500), 2)}
        # Without such a rate, nothing more is drawn: logs stay what they were.
        if rates.long_notes and random.random() < rates.long_notes:
            event["note"] = LONG_NOTE
        if rates.long_ids and random.random() < rates.long_ids:
            sale_id += f"-{LONG_ID}"
        open_sales.append((sale_id, shop, item))
    event |= {"sale_id": sale_id, "shop": shop, "item": item, "at": at}
    return Made(shop.encode(), msgspec.json.encode(event), timestamp_ms)
