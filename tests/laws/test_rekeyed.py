"""Rekeyed views: each stage's state is a fold of its log, and nothing counts twice."""

from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from stream_infer.settings import Settings
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.processing import TP, PartitionsFenced
from stream_infer.stream.service import topic_specs
from stream_infer.training.replay import Replay
from tests.laws.rekeyed_shop import (
    SOURCES,
    Broker,
    TwoStages,
    logs,
    rekeyed_rows,
    rekeyed_topology,
)
from tests.laws.shop import Record, shop_runtime, shop_topology

pytestmark = pytest.mark.redis

Log = dict[TP, list[Record]]


def steps(log: Log, random: Random) -> list[dict[TP, list[Record]]]:
    """Cut each partition at random; micro-batches of several partitions, all of each in order."""
    left = {tp: list(records) for tp, records in log.items()}
    found = []
    while left:
        batch = {}
        for tp in random.sample(sorted(left), random.randint(1, len(left))):
            size = random.choice([1, 3, 40])
            batch[tp], left[tp] = left[tp][:size], left[tp][size:]
        left = {tp: records for tp, records in left.items() if records}
        found.append(batch)
    return found


async def test_an_event_is_sent_on_once_for_each_key_it_has(redis: Redis, unique: str) -> None:
    topology = rekeyed_topology(unique)
    broker = Broker(topology.rekeyed_events)
    worker = TwoStages(topology, redis, broker)
    await worker.start()
    log = logs(topology, 1, 400, poison=0.05, duplicates=0.1, late=0.05)
    await worker.consume(log)
    ends = worker.counters.ends
    assert ends.conserved
    assert min(ends.late, ends.duplicates, ends.dead_letters) > 0
    originals = {
        f"{tp.topic}:{tp.partition}:{r.offset}": r.value for tp, rs in log.items() for r in rs
    }
    sent: dict[str, list[str]] = {}
    for records in broker.logs.values():
        for record in records:
            ((header, where),) = record.headers
            name, _, entity = (record.key or b"").decode().partition("\x1f")
            assert (header, record.value) == ("si-from", originals[where.decode()])
            assert entity.split("\x1f")[-1] in ("x", "y")
            sent.setdefault(where.decode(), []).append(name)
    assert all(sorted(names) == ["item", "sale_id,item"] for names in sent.values())
    assert not any(b'"item":null' in (originals[where] or b"") for where in sent)
    assert 0 < len(sent) < ends.predictions + ends.updates
    assert worker.counters.rekeyed.forwarded == 2 * len(sent)
    await worker.stop()


async def test_a_killed_first_stage_sends_on_again_and_nothing_counts_twice(
    redis: Redis, unique: str
) -> None:
    results: list[Any] = []
    for seed in range(5):
        random = Random(seed)
        topology = rekeyed_topology(f"{unique}_{seed}")
        broker = Broker(topology.rekeyed_events)
        log = logs(topology, 7, 500, poison=0.02, duplicates=0.05, late=0.02)
        repeats = 0
        worker = TwoStages(topology, redis, broker)
        await worker.start()
        # Seed 0 is undisturbed. Whole batches, so that the order of the rekeyed log is the same.
        while any(worker.positions[tp] < len(records) for tp, records in log.items()):
            size = 60
            batch = {
                tp: part
                for tp, records in log.items()
                if (part := records[(at := worker.positions[tp]) : (at // size + 1) * size])
            }
            fate = random.choice(["kept", "lost", "unacknowledged"]) if seed else "kept"
            await worker.consume(
                batch, delivered=fate != "lost", acknowledged=fate != "unacknowledged"
            )
            if fate != "kept":
                worker = TwoStages(topology, redis, broker)
                await worker.start()
        await worker.stop()
        worker = TwoStages(topology, redis, broker)
        await worker.start()
        while batch := {tp: log[:17] for tp, log in broker.from_(worker.positions).items()}:
            await worker.consume(batch)
            if seed and random.random() < 0.2:  # the second stage is killed too
                repeats += worker.counters.rekeyed.duplicates
                worker = TwoStages(topology, redis, broker)
                await worker.start()
        assert worker.counters.rekeyed.conserved
        repeats += worker.counters.rekeyed.duplicates
        await worker.stop()
        assert bool(repeats) == bool(seed)
        rows = await rekeyed_rows(redis, topology)
        results.append({k: v for k, v in rows.items() if b"@marks" not in k})
        assert len(rows) > 100
    assert all(rows == results[0] for rows in results[1:])


async def test_live_at_no_lag_is_what_the_replay_says(redis: Redis, unique: str) -> None:
    topology = rekeyed_topology(unique)
    broker = Broker(topology.rekeyed_events)
    log = logs(topology, 3, 250, duplicates=0.05)
    everything = (record for records in log.values() for record in records)
    in_order = sorted(everything, key=lambda record: (record.offset, record.partition))
    worker = TwoStages(topology, redis, broker)
    await worker.start()
    for record in in_order:
        await worker.consume({TP(record.topic, record.partition): [record]})
        await worker.follow()
        await worker.processor.store()
    choose = Partitioner()
    runtime = shop_runtime(topology)
    replay = Replay(
        runtime.engine, None, lambda key: choose.partition(key, range(SOURCES)), runtime.score
    )
    table = replay.run(((r.key or b"").decode(), r.value or b"") for r in in_order)
    live: dict[str, list[float]] = {}
    for prediction in worker.predictions():
        live.setdefault(prediction["key"], []).append(prediction["score"])
    offline: dict[str, list[float]] = {}
    for key, score in zip(table.keys, table.scores.tolist(), strict=True):
        offline.setdefault(key, []).append(score)
    assert live == offline
    assert sum(map(len, live.values())) > 100
    seen = worker.counters.rekeyed.ages_s["by_item"]
    assert seen.count > 50
    await worker.stop()


async def test_a_stage_that_lost_its_partitions_changes_nothing(redis: Redis, unique: str) -> None:
    topology = rekeyed_topology(unique)
    broker = Broker(topology.rekeyed_events)
    zombie, heir = (TwoStages(topology, redis, broker) for _ in range(2))
    await zombie.start()
    await zombie.consume(logs(topology, 5, 200))
    tp, records = max(broker.logs.items(), key=lambda item: len(item[1]))
    await zombie.consume({tp: records[:10]})
    await zombie.consume({tp: records[10:20]}, acknowledged=False)
    await heir.start()
    assert heir.positions[tp] == 10
    before = await rekeyed_rows(redis, topology)
    zombie.processor.acknowledged({tp: 20})
    with pytest.raises(PartitionsFenced) as caught:
        await zombie.processor.store()
    assert caught.value.partitions == {tp}
    assert caught.value.reassigned
    assert await rekeyed_rows(redis, topology) == before
    await heir.consume({tp: records[10:]})
    assert heir.counters.rekeyed.duplicates == 0
    await heir.stop()


async def test_a_read_that_fails_in_either_stage_moves_neither(
    redis: Redis, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topologies = [rekeyed_topology(f"{unique}_{number}") for number in range(3)]
    results = []
    for failing, topology in enumerate(topologies):
        broker = Broker(topology.rekeyed_events)
        worker = TwoStages(topology, redis, broker)
        await worker.start()
        log = logs(topology, 9, 300)
        await worker.consume({tp: records[:100] for tp, records in log.items()})
        batch = {tp: records[100:] for tp, records in log.items() if records[100:]}
        batch |= broker.from_(worker.positions)
        if failing:
            first, second = worker.processor.first, worker.processor.second
            stage, read = (second._rows, "insert") if failing == 1 else (first, "_read")
            original = getattr(stage, read)

            def fails(*_: object) -> None:
                raise RedisError("away")

            monkeypatch.setattr(stage, read, fails)
            with pytest.raises(RedisError):
                await worker.consume(batch)
            monkeypatch.setattr(stage, read, original)
        await worker.consume(batch)
        await worker.follow()
        await worker.stop()
        text = [{**p, "prediction_id": "", "topology": ""} for p in worker.predictions()]
        results.append((text, await rekeyed_rows(redis, topology)))
    marks = [{k: v for k, v in rows.items() if b"@marks" not in k} for _, rows in results]
    assert marks[0] == marks[1] == marks[2]
    assert results[0][0] == results[1][0] == results[2][0]


async def test_a_key_that_nothing_was_folded_for_is_missing_with_a_reason(
    redis: Redis, unique: str
) -> None:
    topology = rekeyed_topology(unique)
    worker = TwoStages(topology, redis, Broker(topology.rekeyed_events))
    await worker.start()
    await worker.consume(logs(topology, 11, 30))
    for prediction in worker.predictions():
        assert {"missing:by_item", "missing:item_trend", "missing:by_sale"} <= set(
            prediction["degraded"]
        )
    await worker.stop()


def test_a_topology_without_rekeyed_views_reads_one_topic(unique: str) -> None:
    plain, rekeyed = shop_topology(unique), rekeyed_topology(unique)
    assert [spec.name for spec in topic_specs(plain, Settings())[0]] == [plain.stream.name]
    read = [spec.name for spec in topic_specs(rekeyed, Settings())[0]]
    assert read == [rekeyed.stream.name, f"{unique}.rekeyed"]
