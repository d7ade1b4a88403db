"""The second stage, without servers: a fold of the rekeyed log, whatever repeats are in it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_infer.core.engine import Engine
from stream_infer.core.rekeyed import keyed_views, newest_before, read_rekeyed
from stream_infer.core.rekeyed_state import (
    Counted,
    Received,
    fold_rekeyed,
    lacking_rekeyed,
    new_rekeyed_state,
)
from stream_infer.core.shard import Shard
from stream_infer.core.state import PartitionState, new_state
from tests.laws.oracle import Fact, answers
from tests.laws.rekeyed_shop import received_of, rekeyed_topology
from tests.laws.shop import T0_US, LogMaker, Refund, Sale

TOPOLOGY = rekeyed_topology("across")
ENGINE = Engine(TOPOLOGY)
KEYED = keyed_views(TOPOLOGY)
LATENESS_US = TOPOLOGY.stream.lateness_us
HOUR_US = 3_600_000_000
FIELDS = {kind.__name__: frozenset(kind.__struct_fields__) for kind in (Sale, Refund)}
Entry = tuple[str, int, bytes]
"""Source partition, offset there, value."""

few = settings(max_examples=25, deadline=None)


def sources(seed: int, n: int, skew_us: int) -> list[list[Entry]]:
    """Return what three source partitions send on; the second is behind by `skew_us`."""
    random = Random(seed)
    made: list[list[Entry]] = []
    for number, behind_us in enumerate((0, skew_us, 0)):
        values = []
        for value in LogMaker(random).values(n):
            event = msgspec.json.decode(value)
            at = datetime.fromisoformat(event["at"]).timestamp() - behind_us / 1e6
            event["at"] = datetime.fromtimestamp(at, UTC)
            event["item"] = random.choice(["x", "y"])
            values.append(msgspec.json.encode(event))
        made.append([(f"sales:{number}", 3 * i, value) for i, value in enumerate(values)])
    return made


def woven(parts: Sequence[Sequence[Entry]], random: Random) -> list[Entry]:
    """Interleave the parts, each in its own order."""
    left = [list(part) for part in parts if part]
    found: list[Entry] = []
    while left:
        part = random.choice(left)
        found.append(part.pop(0))
        left = [part for part in left if part]
    return found


def with_restarts(log: Sequence[Entry], random: Random) -> list[Entry]:
    """Return the log as it is when publishers of a partition restart, and zombies go on.

    A publisher begins anywhere at or before the end of what is published of its partition, and
    goes on from there, one after the other; several may be at work on one partition.
    """
    whole: dict[str, list[Entry]] = {}
    for entry in log:
        whole.setdefault(entry[0], []).append(entry)
    at = {source: [0] for source in whole}
    published = dict.fromkeys(whole, 0)
    found: list[Entry] = []
    for source, _, _ in log:
        target = published[source] + 1
        while published[source] < target:
            if random.random() < 0.2:
                at[source].append(random.randint(0, published[source]))
            which = random.randrange(len(at[source]))
            place = at[source][which]
            if place < len(whole[source]):
                if place == published[source]:
                    published[source] += 1
                found.append(whole[source][place])
                at[source][which] += 1
    return found


def insert_lacking(state: PartitionState, part: Received) -> None:
    for name, keys in lacking_rekeyed(state, KEYED, part).items():
        state.shards[name].insert(keys, [None] * len(keys))


def fold(log: Sequence[Entry], cuts: Sequence[int]) -> tuple[PartitionState, list[Counted]]:
    state = new_rekeyed_state(TOPOLOGY, 0)
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(log)}), len(log)]
    counted = []
    for start, end in zip([0, *ends], ends, strict=False):
        part = received_of(ENGINE, log[start:end])
        insert_lacking(state, part)
        counted.append(fold_rekeyed(state, KEYED, part))
    return state, counted


def rows(state: PartitionState) -> dict[str, dict[str, bytes]]:
    return {name: dict(shard.take_dirty()) for name, shard in state.shards.items()}


def counts(counted: Sequence[Counted]) -> tuple[int, int, int]:
    return (
        sum(one.folded for one in counted),
        sum(one.duplicates for one in counted),
        sum(one.late for one in counted),
    )


@few
@given(st.integers(0, 2**32), st.sampled_from([0, LATENESS_US, 20 * 60_000_000, 5 * HOUR_US]))
def test_rows_and_counts_do_not_depend_on_batch_cuts(seed: int, skew_us: int) -> None:
    random = Random(seed)
    log = with_restarts(woven(sources(seed, 18, skew_us), random), random)
    whole, at_once = fold(log, [])
    cut, in_parts = fold(log, [random.randrange(len(log)) for _ in range(8)])
    single, one_by_one = fold(log, range(len(log)))
    assert whole.stream_times_us == cut.stream_times_us == single.stream_times_us
    assert rows(whole) == rows(cut) == rows(single)
    assert counts(at_once) == counts(in_parts) == counts(one_by_one)


@few
@given(st.integers(0, 2**32))
def test_what_restarts_publish_again_is_not_folded_again(seed: int) -> None:
    random = Random(seed)
    log = woven(sources(seed, 18, 0), random)
    repeated = with_restarts(log, random)
    clean, once = fold(log, [])
    state, counted = fold(repeated, [random.randrange(len(log)) for _ in range(8)])
    assert rows(state) == rows(clean)
    folded, duplicates, late = counts(counted)
    assert (folded, late) == counts(once)[::2]
    assert duplicates == 2 * (len(repeated) - len(log))


@few
@given(st.integers(0, 2**32), st.sampled_from([0, LATENESS_US, 20 * 60_000_000, 50 * 60_000_000]))
def test_a_row_answers_as_the_oracle_does_for_all_that_was_sent_on(seed: int, skew_us: int) -> None:
    random = Random(seed)
    log = woven(sources(seed, 18, skew_us), random)
    state, counted = fold(log, [random.randrange(len(log)) for _ in range(5)])
    assert counts(counted)[2] == 0
    events = ENGINE.decode([v for _, _, v in log], np.arange(len(log), dtype=np.int64), None)
    for item in ("x", "y"):
        facts = [
            Fact(int(time_us), type(event).__name__, item, msgspec.structs.asdict(event))
            for event, time_us in zip(events.events, events.times_us, strict=True)
            if event.item == item  # type: ignore[attr-defined]
        ]
        newest_us = max(fact.time_us for fact in facts)
        for ahead_us in (0, -LATENESS_US, 60_000_000, HOUR_US):
            probe = Fact(newest_us + ahead_us, "Sale", item, {"amount": 1.0})
            _asked(state, item, [*facts, probe])


def _asked(state: PartitionState, item: str, log: list[Fact]) -> None:
    """Read as of the last fact, which is not folded, and compare."""
    at = datetime.fromtimestamp(log[-1].time_us / 1e6, UTC)
    sale = Sale(sale_id="?", shop="z", at=at, amount=1.0, item=item)
    batch = ENGINE.decode([msgspec.json.encode(sale)], np.zeros(1, np.int64), None)
    found = read_rekeyed(TOPOLOGY, state.shards, batch)
    for view in TOPOLOGY.rekeyed:
        if view.by != ("item",):
            continue
        expected = answers(view.features, FIELDS, {}, log, len(log) - 1)
        values = found[view.name].values[0].tolist()
        for name, value in zip(view.features, values, strict=True):
            assert expected[name].matches(value), (view.name, name, expected[name], value)


def test_an_event_that_no_window_can_hold_any_more_is_late() -> None:
    log = [
        ("sales:0", 0, sale(0, 5 * HOUR_US)),
        ("sales:1", 0, sale(1, 0)),
        ("sales:1", 1, sale(2, 5 * HOUR_US - LATENESS_US)),
    ]
    state, counted = fold(log, [])
    rows_with, _ = fold([log[0], log[2]], [])
    # By its own sale's key, which nothing newer has, the old event counts.
    assert counts(counted) == (5, 0, 1)
    mine, theirs = rows(state), rows(rows_with)
    assert mine["by_item"] == theirs["by_item"]
    assert len(mine["by_sale"]) == len(theirs["by_sale"]) + 1


def test_a_row_far_ahead_of_an_event_is_missing_and_says_so() -> None:
    state, _ = fold([("sales:0", 0, sale(0, HOUR_US))], [])
    for behind_us, ahead in ((LATENESS_US, False), (LATENESS_US + 1, True)):
        batch = ENGINE.decode([sale(9, HOUR_US - behind_us)], np.zeros(1, np.int64), None)
        vectors = ENGINE.read_vectors({**state.shards, **own_rows()}, batch, None)
        names = dict(zip(vectors.reason_names, vectors.reasons[0].tolist(), strict=True))
        assert (names["ahead:by_item"], names["missing:by_item"]) == (ahead, False)
        place = ENGINE.vector_names.index("by_item__sales_5m")
        assert np.isnan(vectors.values[0, place]) == ahead


def sale(number: int, after_us: int) -> bytes:
    at = datetime.fromtimestamp((T0_US + after_us) / 1e6, UTC)
    made = Sale(sale_id=f"s{number}", shop="a", at=at, amount=2.0, item="x")
    return msgspec.json.encode(made)


def own_rows() -> dict[str, Shard]:
    return dict(new_state(TOPOLOGY, 0).shards)


@few
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), max_size=30))
def test_the_newest_before_is_that_of_a_loop(pairs: list[tuple[int, int]]) -> None:
    newest = {0: 10, 1: 0, 2: 25, 3: 0}
    stored = [newest[row] for row, _ in pairs]
    expected = []
    for row, time_us in pairs:
        expected.append(newest[row])
        newest[row] = max(newest[row], time_us)
    rows_of = np.array([row for row, _ in pairs], np.int64)
    times_us = np.array([time_us for _, time_us in pairs], np.int64)
    found = newest_before(np.array(stored, np.int64), rows_of, times_us)
    assert found.tolist() == expected
