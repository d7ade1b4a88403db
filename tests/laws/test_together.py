"""Partitions of one micro-batch are worked on at once, as if each were alone."""

from random import Random

import pytest
from redis.asyncio import Redis

from stream_infer.stream.processing import TP, OutgoingRecord, one_by_one
from stream_infer.stream.work import Work
from tests.laws.shop import LogMaker, as_records, shop_runtime, shop_topology
from tests.laws.test_processing import Worker

pytestmark = pytest.mark.redis


async def rows_by_partition(redis: Redis, name: str) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    async for key in redis.scan_iter(f"si:{{{name}:*"):
        meta = key.endswith(b":meta")
        value = await (redis.hget(key, "next_offset") if meta else redis.get(key))
        found[key.replace(name.encode(), b"T")] = value and value.replace(name.encode(), b"T")
    return found


async def test_partitions_worked_on_together_do_not_see_each_other(
    redis: Redis, unique: str
) -> None:
    """The same keys and event ids in three partitions, at once and one after the other."""
    results = []
    for together in (True, False):
        topology = shop_topology(f"{unique}_{together}")
        worker = Worker(shop_runtime(topology), redis, rows_max=4)
        tps = [TP(topology.stream.name, number) for number in range(3)]
        await worker.processor.assign(tps, dict.fromkeys(tps))
        sent: dict[TP, list[OutgoingRecord]] = {tp: [] for tp in tps}
        makers = [LogMaker(Random(seed), 0.02, 0.05, 0.02) for seed in (1, 1, 2)]
        logs = [as_records(*tp, maker.values(300)) for tp, maker in zip(tps, makers, strict=True)]
        for start in range(0, 300, 20):
            batch = {tp: log[start : start + 20] for tp, log in zip(tps, logs, strict=True)}
            parts = [batch] if together else [{tp: records} for tp, records in batch.items()]
            for part in parts:
                outcome = await worker.processor.process(part)
                for tp, records in outcome.results.items():
                    sent[tp] += one_by_one(records)
                worker.processor.acknowledged(outcome.positions)
                await worker.processor.store()
        await worker.processor.revoke(tps)
        text = repr([sent[tp] for tp in tps]).replace(topology.name, "T")
        rows = await rows_by_partition(redis, topology.name)
        assert len(rows) > 500
        results.append((text, rows, worker.counters.ends))
    assert results[0] == results[1]


async def test_what_is_decoded_ahead_makes_no_difference(redis: Redis, unique: str) -> None:
    """Also where the batch that comes then is another one."""
    results = []
    for ahead in ("never", "always", "for another batch"):
        topology = shop_topology(f"{unique}_{ahead.replace(' ', '_')}")
        worker = Worker(shop_runtime(topology), redis)
        await worker.start()
        log = as_records(*worker.tp, LogMaker(Random(5), 0.02, 0.05, 0.02).values(300))
        batches = [{worker.tp: log[start : start + 20]} for start in range(0, 300, 20)]
        following = [*batches[1:], None]
        if ahead == "for another batch":
            following = [batch and {worker.tp: batch[worker.tp][:7]} for batch in following]
        text = ""
        for batch, after in zip(batches, following, strict=True):
            take = None if ahead == "never" else lambda after=after: after
            outcome = await worker.processor.process(batch, take)
            text += repr(outcome)
            worker.processor.acknowledged(outcome.positions)
            await worker.processor.store()
        await worker.processor.revoke([worker.tp])
        rows = await rows_by_partition(redis, topology.name)
        results.append((text.replace(topology.name, "T"), rows, worker.counters.ends))
    assert results[0] == results[1] == results[2]


async def test_records_of_a_partition_that_was_taken_again_meanwhile_are_dropped(
    redis: Redis, unique: str
) -> None:
    """They are read again from where its state begins; the other partitions go on."""
    topology = shop_topology(unique)
    worker = Worker(shop_runtime(topology), redis)
    tps = [TP(topology.stream.name, number) for number in range(2)]
    logs = [as_records(*tp, LogMaker(Random(seed)).values(60)) for seed, tp in enumerate(tps)]
    processor = worker.processor
    await processor.assign(tps, dict.fromkeys(tps))
    await processor.process({tp: log[:20] for tp, log in zip(tps, logs, strict=True)})
    read = processor._read

    async def taken_again(work: Work) -> None:
        await read(work)
        processor._read = read  # type: ignore[method-assign]
        await processor.assign(tps[:1], dict.fromkeys(tps))

    processor._read = taken_again  # type: ignore[method-assign]
    outcome = await processor.process({tp: log[20:] for tp, log in zip(tps, logs, strict=True)})
    assert set(outcome.positions) == set(outcome.results) == {tps[1]}
    assert processor._holdings[tps[0]].state.position == (0,)
    assert (await processor.process({tps[0]: logs[0]})).positions == {tps[0]: 60}
