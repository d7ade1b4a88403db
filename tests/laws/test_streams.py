"""The laws, over a log that is merged from two streams, with the processor and a real Redis."""

from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis

from stream_infer.core.partitioned import Partitioned
from stream_infer.core.topology import Topology
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings
from stream_infer.store.state import StateStore
from stream_infer.stream.processing import TP, MergedRecords, OutgoingRecord, one_by_one
from stream_infer.stream.processor import TopologyProcessor
from tests.laws.oracle import Fact, answers
from tests.laws.shop import shop_runtime
from tests.laws.weather_shop import Weather, logs, merged, weather_topology

pytestmark = pytest.mark.redis


class Worker:
    """A worker's processor driven by hand, over one partition of two topics."""

    def __init__(
        self, topology: Topology, redis: Redis, *, rows_max: int = 1_000, partition: int = 0
    ) -> None:
        runtime = shop_runtime(topology)
        self.topology = topology
        self.tps = [TP(stream.name, partition) for stream in topology.streams]
        self.store = StateStore(redis, topology.name, runtime.engine.schema, 4)
        self.counters = TopologyCounters()
        self.sent: list[OutgoingRecord] = []
        self.processor = TopologyProcessor(
            runtime,
            redis,
            self.store,
            Settings(flush_interval_s=0.001, state_rows_max=rows_max),
            self.counters,
            wall_us=lambda: 1_400_000_000_000_000,
            broken=lambda error: None,
        )

    async def start(self, committed: tuple[int | None, ...] = (None, None)) -> tuple[int, ...]:
        noted = dict(zip(self.tps, committed, strict=True))
        positions = await self.processor.assign(self.tps, noted)
        return tuple(positions[tp] for tp in self.tps)

    async def consume(self, records: MergedRecords, *, acknowledge: bool = True) -> None:
        outcome = await self.processor.process({self.tps[0]: records})
        self.sent.extend(one_by_one(outcome.outgoing))
        if acknowledge:
            self.processor.acknowledged(outcome.positions)
            await self.processor.store()

    def of(self, topic: str) -> list[dict[str, Any]]:
        return [
            msgspec.json.decode(record.value)
            for record in self.sent
            if record.topic == topic and record.value is not None
        ]


def part(records: MergedRecords, start: int, stop: int) -> MergedRecords:
    return MergedRecords(records[start:stop], records.sources[start:stop])


def from_position(records: MergedRecords, position: tuple[int, ...]) -> MergedRecords:
    """Return what a worker reads that takes over at a position."""
    left = [
        (record, source)
        for record, source in zip(records, records.sources, strict=True)
        if record.offset >= position[source]
    ]
    return MergedRecords([record for record, _ in left], [source for _, source in left])


def cuts(random: Random, records: MergedRecords) -> list[MergedRecords]:
    batches, start = [], 0
    while start < len(records):
        size = random.choice([1, 2, 7, 50, 400])
        batches.append(part(records, start, start + size))
        start += size
    return batches


async def stored(redis: Redis, name: str) -> dict[bytes, Any]:
    """All rows of a topology, less what may differ: epochs, its name, and the time of results."""
    found: dict[bytes, Any] = {}
    prefix = f"si:{{{name}:".encode()
    async for key in redis.scan_iter(prefix + b"*"):
        short = key.removeprefix(prefix)
        if short.endswith(b"}:meta"):
            found[short] = await redis.hmget(key, ["next_offset", "stream_time_us"])
            continue
        row = (await redis.get(key)).replace(name.encode(), b"T")
        if b"}:@results:" in short:
            row = msgspec.json.decode(row)
            del row["predicted_at"], row["latency_ms"]
        found[short] = row
    return found


async def test_predictions_and_state_do_not_depend_on_batch_cuts(redis: Redis, unique: str) -> None:
    results = []
    for run, batches_of in enumerate(("whole", "cut", "single")):
        topology = weather_topology(f"{unique}_{run}")
        records = merged(topology, logs(topology, 1, 400, 300))
        worker = Worker(topology, redis, rows_max=1_000 if run else 2)
        await worker.start()
        batches = {
            "whole": [records],
            "cut": cuts(Random(run), records),
            "single": [part(records, n, n + 1) for n in range(len(records))],
        }[batches_of]
        for batch in batches:
            await worker.consume(batch)
        await worker.processor.revoke(worker.tps)
        predictions, outcomes = worker.of(topology.output), worker.of(topology.outcomes)
        text = msgspec.json.encode([predictions, outcomes]).decode()
        rows = await stored(redis, topology.name)
        ends = worker.counters.ends
        results.append((text.replace(topology.name, "T"), rows, ends))
        assert len(predictions) > 200
        assert len(outcomes) > 30
        assert ends.conserved
        assert ends.consumed == 700
        assert min(ends.late, ends.duplicates, ends.dead_letters) > 5
        assert rows[b"0}:meta"][0] == b"400,300"
    assert results[0] == results[1] == results[2]


async def test_a_prediction_sees_the_other_streams_events_before_it_in_the_merged_log(
    redis: Redis, unique: str
) -> None:
    topology = weather_topology(unique)
    records = merged(topology, logs(topology, 2, 300, 300))
    worker = Worker(topology, redis)
    await worker.start()
    engine = worker.processor._runtime.engine
    state = worker.processor._holdings[worker.tps[0]].state
    n = len(records)
    batch = engine.decode(
        [record.value for record in records],
        np.array([record.offset for record in records]),
        np.array([record.timestamp for record in records]) * 1000,
        np.array(records.sources, np.int8),
    )
    work = Partitioned.alone(state, batch)
    found = engine.look_up(work)
    for name, keys in found.lacking().items():
        state.shards[name].insert(keys, [None] * len(keys))
    folded = engine.fold_batch(work, found, None)
    view = topology.views[1]
    type_fields = {"Weather": frozenset(Weather.__struct_fields__)}
    lateness_us = view.stream.lateness_us
    facts = [
        Fact(
            int(us),
            type(event).__name__,
            event.shop,
            {"rain_mm": event.rain_mm, "gust": event.gust} if isinstance(event, Weather) else {},
        )
        for us, event in zip(folded.kept.times_us, folded.kept.events, strict=True)
    ]
    columns = [engine.vector_names.index(name) for name in view.feature_names]
    checked = 0
    for row, at in enumerate(folded.scored_at.tolist()):
        before = [fact for fact in facts[:at] if fact.type_name == "Weather"]
        same = [fact.time_us for fact in before if fact.key == facts[at].key]
        seen_us = max(facts[at].time_us, max(same, default=0) - lateness_us)
        seen = Fact(seen_us, "Sale", facts[at].key, {})
        log = [*before, seen]
        expected = answers(view.features, type_fields, {}, log, len(before))
        found = folded.vectors.values[row, columns].tolist()
        for name, value in zip(view.features, found, strict=True):
            assert expected[name].matches(value), (row, name, expected[name], value)
        checked += bool(same)
    assert n == 600
    assert checked > 150


@pytest.mark.parametrize("seed", range(5))
async def test_a_crash_counts_nothing_twice_and_loses_nothing(
    redis: Redis, unique: str, seed: int
) -> None:
    """A worker dies with batches unacknowledged; its successor reads both topics from their own
    positions, and rows and results are those of a worker that never died.
    """
    calm = weather_topology(f"{unique}_calm")
    undisturbed = Worker(calm, redis)
    await undisturbed.start()
    await undisturbed.consume(merged(calm, logs(calm, seed, 300, 200)))
    await undisturbed.processor.revoke(undisturbed.tps)

    topology = weather_topology(f"{unique}_crash")
    records = merged(topology, logs(topology, seed, 300, 200))
    random = Random(seed)
    found: dict[str, dict[str, Any]] = {}
    position: tuple[int, ...] = (0, 0)
    acknowledged: tuple[int, ...] = (0, 0)
    sent: list[OutgoingRecord] = []
    for life in range(4):
        worker = Worker(topology, redis)
        position = await worker.start(acknowledged if life else (None, None))
        left = from_position(records, position)
        batches = cuts(random, left)
        lasting = batches if life == 3 else batches[: random.randrange(1, len(batches) + 1)]
        for number, batch in enumerate(lasting):
            dying = life < 3 and number == len(lasting) - 1
            await worker.consume(batch, acknowledge=not dying)
            if not dying:
                now = list(acknowledged)
                for record, source in zip(batch, batch.sources, strict=True):
                    now[source] = max(now[source], record.offset + 1)
                acknowledged = tuple(now)
        sent += worker.sent
    await worker.processor.revoke(worker.tps)
    for record in sent:
        if record.topic == topology.output and record.value is not None:
            said = msgspec.json.decode(record.value)
            assert found.setdefault(said["prediction_id"], said) == said
    expected = {
        said["prediction_id"].replace(calm.name, topology.name): said["score"]
        for said in undisturbed.of(calm.output)
    }
    assert {identity: said["score"] for identity, said in found.items()} == expected
    assert await stored(redis, topology.name) == await stored(redis, calm.name)


async def test_dead_letters_and_outcomes_name_the_topic_they_come_from(
    redis: Redis, unique: str
) -> None:
    topology = weather_topology(unique)
    both = logs(topology, 3, 200, 200)
    worker = Worker(topology, redis)
    await worker.start()
    await worker.consume(merged(topology, both))
    by_topic = {stream.name: log for stream, log in zip(topology.streams, both, strict=True)}
    seen = set()
    for letter in worker.sent:
        if letter.topic == topology.dead_letters:
            headers = {name: value.decode() for name, value in letter.headers}
            log = by_topic[headers["si-topic"]]
            assert log[int(headers["si-offset"])].value == letter.value
            seen.add(headers["si-topic"])
    assert seen == set(by_topic)
    for outcome in worker.of(topology.outcomes):
        assert outcome["prediction_id"].split(":")[1] == topology.streams[0].name
        assert outcome["outcome_id"].split(":")[1] == topology.streams[0].name
