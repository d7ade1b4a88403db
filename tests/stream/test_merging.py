"""Merging topics: by event time, within bounded waits, and within the bounds of what may wait."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.merging import Merging, MergingPickup, complete, together
from stream_infer.stream.processing import TP, MergedRecords
from stream_infer.stream.settings import StreamSettings
from tests.laws.shop import Record

A, B, A1, B1 = TP("a", 0), TP("b", 0), TP("a", 1), TP("b", 1)


def times(values, ingested_ms):
    """A value is its own event time."""
    return [int(value) for value in values]


MERGING = Merging(("a", "b"), (times, times))


def log(tp: TP, *times_us: int, start: int = 0) -> list[Record]:
    return [
        Record(tp.topic, tp.partition, start + n, 0, None, str(us).encode())
        for n, us in enumerate(times_us)
    ]


@dataclass
class Place:
    """A pickup with a clock and log ends of its own."""

    ends: dict[TP, int]
    settings: Mapping[str, int]
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.counters = StreamCounters()
        settings = msgspec.structs.replace(StreamSettings(), **self.settings)
        self.pickup = MergingPickup(
            MERGING, settings, self.counters, self.ends.get, lambda: self.now_s
        )
        for tp in self.ends:
            self.pickup.open(tp, 0)

    def taken(self) -> list[tuple[str, int]]:
        """Take what is ready of partition 0: topic and event time of each record."""
        found = self.pickup.ready().get(A, MergedRecords())
        topics = [MERGING.topics[source] for source in found.sources]
        assert topics == [record.topic for record in found]
        return [(record.topic, int(record.value)) for record in found]


def place(**settings: int) -> Place:
    return Place({A: 0, B: 0}, settings)


def test_topics_that_are_at_their_end_are_not_waited_for() -> None:
    here = place()
    here.pickup.put(A, log(A, 5, 6))
    assert here.taken() == [("a", 5), ("a", 6)]
    here.pickup.put(B, log(B, 1))
    assert here.taken() == [("b", 1)]
    assert here.counters.merge_waits == {}


def test_a_record_waits_for_a_topic_that_has_more() -> None:
    here = place()
    here.ends[B] = 3
    here.pickup.put(A, log(A, 5, 7))
    assert here.taken() == []
    here.pickup.put(B, log(B, 4, 6))
    assert here.taken() == [("b", 4), ("a", 5), ("b", 6)]  # B has one more
    here.pickup.put(B, log(B, 9, start=2))
    assert here.taken() == [("a", 7), ("b", 9)]


def test_a_topic_whose_end_is_not_known_counts_as_one_that_has_more() -> None:
    here = place(merge_wait_ms=2_000)
    del here.ends[B]
    here.pickup.put(A, log(A, 5))
    assert here.taken() == []
    here.pickup.put(B, log(B, 4))
    assert here.taken() == [("b", 4)]
    here.now_s += 1.9
    assert here.taken() == []
    here.now_s += 0.2
    assert here.taken() == [("a", 5)]
    assert here.counters.merge_waits == {"b": 1}


def test_ties_go_to_the_topic_declared_first_and_then_by_offset() -> None:
    here = place()
    here.pickup.put(B, log(B, 1, 1))
    here.pickup.put(A, log(A, 1, 1))
    assert here.taken() == [("a", 1), ("a", 1), ("b", 1), ("b", 1)]


def test_the_order_within_a_topic_is_never_changed() -> None:
    here = place()
    here.pickup.put(A, log(A, 9, 1, 2))
    here.pickup.put(B, log(B, 3, 10))
    assert here.taken() == [("b", 3), ("a", 9), ("a", 1), ("a", 2), ("b", 10)]


def test_a_wait_ends_and_is_counted_and_the_topic_is_not_waited_for_before_it_delivers() -> None:
    here = place(merge_wait_ms=2_000)
    here.ends[B] = 10
    here.pickup.put(A, log(A, 5))
    assert here.taken() == []
    here.now_s += 1.5
    here.pickup.put(A, log(A, 6, start=1))  # what arrives meanwhile prolongs nothing
    assert here.taken() == []
    here.now_s += 0.6
    assert here.taken() == [("a", 5), ("a", 6)]
    assert here.counters.merge_waits == {"b": 1}
    here.pickup.put(A, log(A, 7, start=2))
    assert here.taken() == [("a", 7)]
    here.pickup.put(B, log(B, 1))
    assert here.taken() == [("b", 1)]
    here.pickup.put(A, log(A, 8, start=3))
    assert here.taken() == []  # it has delivered: it is waited for again
    assert here.counters.merge_waits == {"b": 1}


def test_a_topic_at_its_end_is_waited_for_as_long_as_the_setting_says() -> None:
    here = place(merge_idle_ms=50)
    here.pickup.put(A, log(A, 5))
    assert here.taken() == []
    here.now_s += 0.04
    here.pickup.put(A, log(A, 6, start=1))
    here.now_s += 0.02
    assert here.taken() == [("a", 5)]  # 6 has come later
    here.pickup.put(B, log(B, 2))
    assert here.taken() == [("b", 2)]
    here.now_s += 0.05
    assert here.taken() == [("a", 6)]
    assert here.counters.merge_waits == {}


def test_a_record_without_a_time_waits_for_nothing() -> None:
    here = place()
    here.ends[B] = 3
    here.pickup.put(A, log(A, -1, 5, -1))
    assert here.taken() == [("a", -1)]
    here.pickup.put(B, log(B, 6, 7, 8))
    assert here.taken() == [("a", 5), ("a", -1), ("b", 6), ("b", 7), ("b", 8)]


def test_a_waiting_take_ends_with_the_wait() -> None:
    async def run() -> None:
        here = place(merge_wait_ms=10)
        here.ends[B] = 3
        here.pickup._monotonic_s = asyncio.get_running_loop().time
        here.pickup.put(A, log(A, 5))
        batch = await asyncio.wait_for(here.pickup.take(), 5)
        assert [record.offset for record in batch[A]] == [0]
        assert here.counters.merge_waits == {"b": 1}

    asyncio.run(run())


def test_a_topic_that_waits_leaves_room_for_the_one_that_it_waits_for() -> None:
    here = place(waiting_records_max=8)
    here.ends[B] = 3
    here.pickup.put(A, log(A, *range(10, 20)))
    assert here.pickup.open_partitions == {B}
    assert here.pickup.has_room
    here.pickup.put(B, log(B, 1, 2, 3, 4))
    assert not here.pickup.has_room
    assert len(here.taken()) == 14
    assert here.pickup.open_partitions == {A, B}
    assert here.pickup.waiting == (0, 0)


def test_nothing_passes_before_all_topics_of_a_number_are_open() -> None:
    here = Place({A: 0}, {})
    here.pickup.put(A, log(A, 1))
    assert here.taken() == []
    here.ends[B] = 0
    here.pickup.open(B, 0)
    assert here.taken() == [("a", 1)]


def test_closing_a_partition_drops_what_waits_of_its_number() -> None:
    here = Place({A: 0, B: 5, A1: 0, B1: 0}, {})
    here.pickup.put(A, log(A, 1))
    here.pickup.put(B1, log(B1, 1))
    here.pickup.close([B])
    assert here.pickup.open_partitions == {A1, B1}
    here.pickup.put(A, log(A, 2, start=1))
    assert here.pickup.waiting[0] == 1
    assert list(here.pickup.ready()) == [A1]  # under the name of the first topic


def test_partitions_of_one_number_belong_together() -> None:
    assert together(MERGING, [A]) == {A, B}
    assert together(None, [A]) == {A}
    assert complete(MERGING, [A, B, A1]) == [A, B]
    assert complete(None, [A1, A]) == [A, A1]


@given(
    a=st.lists(st.integers(-1, 20), max_size=25),
    b=st.lists(st.integers(-1, 20), max_size=25),
    random=st.randoms(use_true_random=False),
    records_max=st.integers(1, 7),
)
def test_a_backlog_has_one_order_however_it_is_fetched(a, b, random, records_max) -> None:
    """Of the records with a time; the others wait for nothing, and pass when they are seen."""
    whole = place()
    for tp, given_times in ((A, a), (B, b)):
        whole.pickup.put(tp, log(tp, *given_times))
    expected = whole.taken()
    here = place(batch_records_max=records_max)
    here.ends.update({A: len(a), B: len(b)})
    found, done = [], {A: 0, B: 0}
    while len(found) < len(a) + len(b):
        tp = random.choice([A, B])
        rest = (a if tp is A else b)[done[tp] :]
        size = random.randint(0, len(rest))
        here.pickup.put(tp, log(tp, *rest[:size], start=done[tp]))
        done[tp] += size
        while batch := here.taken():
            assert len(batch) <= records_max
            found += batch
    assert [one for one in found if one[1] >= 0] == [one for one in expected if one[1] >= 0]
    for topic in MERGING.topics:
        assert [o for o in found if o[0] == topic] == [o for o in expected if o[0] == topic]
    assert here.counters.merge_waits == {}
