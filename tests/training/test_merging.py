"""Files of several streams are replayed in the order in which a worker merges their topics."""

import msgspec
import pytest
from redis.asyncio import Redis

from stream_infer.core.engine import Engine
from stream_infer.core.merging import event_times
from stream_infer.training.merging import merged as merged_files
from stream_infer.training.replay import Replay
from tests.laws.shop import shop_runtime
from tests.laws.test_streams import Worker
from tests.laws.weather_shop import logs, merged, weather_topology


def keyed(value: bytes) -> str:
    try:
        return str(msgspec.json.decode(value)["shop"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "a"


@pytest.mark.parametrize("seed", range(3))
def test_files_are_merged_as_topics_that_are_a_backlog(seed: int) -> None:
    topology = weather_topology("t")
    records = logs(topology, seed, 3_000, 2_500)
    times = [event_times(stream) for stream in topology.streams]
    files = [[(keyed(record.value), record.value) for record in log] for log in records]
    found = list(merged_files(files, times, lambda key: b"abc".index(key)))
    for number, shop in enumerate("abc"):
        of_shop = tuple([r for r in log if keyed(r.value) == shop] for log in records)
        expected = merged(topology, of_shop)
        timed = {
            value
            for log, read in zip(of_shop, times, strict=True)
            for record in log
            if read([value := record.value], None)[0] >= 0
        }
        mine = [(source, value) for partition, source, value in found if partition == number]
        whole = [
            (source, record.value)
            for source, record in zip(expected.sources, expected, strict=True)
        ]
        assert [one for one in mine if one[1] in timed] == [o for o in whole if o[1] in timed]
        assert sorted(mine) == sorted(whole)


@pytest.mark.redis
async def test_a_replay_of_several_streams_gives_the_workers_scores(
    redis_url: str, unique: str
) -> None:
    topology = weather_topology(unique)
    records = logs(topology, 5, 400, 400)
    redis = Redis.from_url(redis_url)
    worker = Worker(topology, redis)
    await worker.start()
    await worker.consume(merged(topology, records))
    await redis.aclose()
    live = [said["scores"] for said in worker.of(topology.output)]
    replay = Replay(Engine(topology), None, lambda key: 0, shop_runtime(topology).score)
    files = [[("k", record.value) for record in log] for log in records]
    table = replay.run_streams(files)
    offline = [dict(zip(("sum", "first"), each, strict=True)) for each in table.each.tolist()]
    assert live == offline
    assert len(live) > 200
