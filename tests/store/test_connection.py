"""One Redis or a cluster: the URL says which, and everything works the same on both."""

import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from stream_infer.core.errors import FencedError, SettingsError
from stream_infer.core.state import Snapshot, StoredRows
from stream_infer.processes import wait_until
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.commands import Commands
from stream_infer.store.connection import cluster_address, connect, connect_blocking, is_cluster
from stream_infer.store.feast_repo import (
    _store,
    apply_and_materialize,
    connection_string,
    load_plan,
)
from stream_infer.store.state import StateStore, partition_prefix
from tests.servers.redis_cluster import RedisCluster
from tests.serving.support import client_of, consume, event, shop_services, shop_topology
from tests.store.feast_types import DAYS, USERS, write_repository

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    servers = RedisCluster(tmp_path_factory.mktemp("cluster"))
    yield servers.start()
    servers.stop()


@pytest.fixture
async def redis(cluster: RedisCluster) -> AsyncIterator[Redis]:
    client = connect(cluster.url, timeout_s=5)
    yield client
    await client.aclose()


def test_a_clusters_url_names_its_nodes_and_how_to_log_in() -> None:
    address = cluster_address("rediss+cluster://me:p%40ss@one,two:7001,[::1]:7002/0")
    assert address.nodes == (("one", 6379), ("two", 7001), ("::1", 7002))
    assert (address.username, address.password, address.tls) == ("me", "p@ss", True)
    assert "p@ss" not in repr(address)
    assert not cluster_address("redis+cluster://one").tls
    assert is_cluster("redis+cluster://one")
    assert not is_cluster("rediss://one")


@pytest.mark.parametrize(
    "url", ["redis+cluster://", "redis+cluster://secret@one:x", "redis+cluster://secret@one/3"]
)
def test_a_clusters_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"redis\+cluster://.*host") as refusal:
        connect(url, timeout_s=1)
    assert "secret" not in str(refusal.value)
    with pytest.raises(SettingsError):
        connect("http://one", timeout_s=1)


def test_feast_is_given_all_nodes_of_a_cluster() -> None:
    url = "rediss+cluster://:secret@one:7000,two:7001"
    assert connection_string(url) == "one:7000,two:7001,password=secret,ssl=true"


async def test_one_pipeline_reads_rows_of_partitions_on_different_nodes(
    redis: Redis, cluster: RedisCluster, unique: str
) -> None:
    store = StateStore(redis, unique, "", 12)
    await store.check()
    for partition in range(12):
        rows = [(f"key{n}", bytes([partition, n])) for n in range(5)]
        first = await store.acquire(partition)
        stored = await store.write(first, Snapshot((7,), (11,), [StoredRows("view", 60_000, rows)]))
        store.check_header(stored, (b"1", b"7"))
        await store.acquire(partition)
        with pytest.raises(FencedError):
            await store.write(stored, Snapshot((9,), (11,), []))
    pipeline = redis.pipeline(transaction=False)
    for partition in range(12):
        keys = store.row_keys(partition, "view", ["key1", "key9", "key4"])
        pipeline.execute_command("MGET", *keys)
        pipeline.execute_command(*store.header_command(partition))
    replies = await pipeline.execute()
    assert replies[::2] == [[bytes([n, 1]), None, bytes([n, 4])] for n in range(12)]
    assert replies[1::2] == [[b"2", b"7"]] * 12
    asked = [("MGET", *store.row_keys(n, "view", ["key1", "key9", "key4"])) for n in range(12)]
    assert await Commands(redis, timeout_s=5).run(asked) == replies[::2]
    with connect_blocking(cluster.url) as blocking:
        places = {blocking.keyslot(f"{unique}:{n}") // 5462 for n in range(12)}
    assert places == {0, 1, 2}


async def test_a_client_that_looks_at_its_cluster_anew_closes_all_connections(
    cluster: RedisCluster, unique: str
) -> None:
    with connect_blocking(cluster.url) as admin:

        def connections() -> set[str]:
            told = admin.execute_command("CLIENT LIST", target_nodes="primaries")
            return {one["addr"] for clients in told.values() for one in clients}

        before = connections()
        client = connect(cluster.url, timeout_s=5)
        for _ in range(3):
            for number in range(12):
                await client.set(f"{unique}{number}", number)
            manager = client.nodes_manager  # type: ignore[attr-defined]
            for nodes in manager.slots_cache.values():
                assert all(node is manager.nodes_cache[node.name] for node in nodes)
            await manager.initialize()
        assert connections() > before
        await client.aclose()
        assert wait_until(lambda: connections() <= before, timeout_s=10)


async def test_a_write_is_all_or_nothing_while_its_slot_moves_to_another_node(
    redis: Redis, cluster: RedisCluster, unique: str
) -> None:
    store = StateStore(redis, unique, "", 1)
    before = Snapshot((5,), (11,), [StoredRows("view", 60_000, [("old", b"1")])])
    owner = await store.write(await store.acquire(0), before)
    after = Snapshot((9,), (12,), [StoredRows("view", 60_000, [("old", b"2"), ("new", b"3")])])
    keys = store.row_keys(0, "view", ["old", "new"])
    meta = f"{partition_prefix(unique, 0)}meta"
    with connect_blocking(cluster.url) as admin:
        slot = admin.keyslot(meta)
        source = admin.get_node_from_key(meta)
        target = next(node for node in admin.get_primaries() if node != source)
        names = {
            node.name: admin.execute_command("CLUSTER MYID", target_nodes=node).decode()
            for node in (source, target)
        }

        def set_slot(node: object, *words: str) -> None:
            admin.execute_command("CLUSTER SETSLOT", slot, *words, target_nodes=node)

        set_slot(target, "IMPORTING", names[source.name])
        set_slot(source, "MIGRATING", names[target.name])
        with pytest.raises(RedisError):
            await store.write(owner, after)
        assert admin.get(keys[0]) == b"1"
        present = admin.execute_command("CLUSTER GETKEYSINSLOT", slot, 100, target_nodes=source)
        move = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *present)
        admin.execute_command(*move, target_nodes=source)
        for node in admin.get_primaries():
            set_slot(node, "NODE", names[target.name])
    moved = await store.write(owner, after)
    assert moved.position == (9,)
    assert [await redis.get(key) for key in keys] == [b"2", b"3"]


async def test_http_scores_from_a_cluster_as_from_one_redis(
    cluster: RedisCluster, redis_url: str, unique: str
) -> None:
    events = [event(sale_id=f"s{n}", shop=f"shop{n % 5}", amount=float(n)) for n in range(40)]
    asked = [event(sale_id=f"a{n}", shop=f"shop{n}") for n in range(5)]
    scores = []
    for url in (redis_url, cluster.url):
        await consume(url, shop_topology(unique), [msgspec.json.encode(one) for one in events])
        services, _, _ = shop_services(unique, url)
        async with client_of(services) as client:
            await services.refresh_partitions()
            answer = await client.post(f"/v1/topologies/{unique}/predict", json=asked)
            scores.append([one["scores"] for one in answer.json()["predictions"]])
            latest = await client.get(f"/v1/topologies/{unique}/predictions/shop1")
            assert latest.status_code in (200, 404)
    assert scores[0] == scores[1]


# Feast warns of on-demand views, which the repository has so that they are refused.
@pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")
async def test_batch_features_of_a_cluster_equal_feasts_sdk(
    redis: Redis, cluster: RedisCluster, tmp_path: Path
) -> None:
    repo = write_repository(tmp_path / "repo")
    apply_and_materialize(repo, DAYS[2], cluster.url)
    plan = load_plan(repo, "everything", exclude=["users__text"])
    rows = [{"user_id": user, "shop_name": "süd", "target": "north"} for user in USERS]
    columns = {field: [row[field] for row in rows] for field in plan.fields}
    ours = await BatchFeatureReader(plan).read(Commands(redis, timeout_s=5), columns)
    feast = _store(repo, cluster.url)
    theirs = feast.get_online_features(
        features=feast.get_feature_service("everything"), entity_rows=rows, full_feature_names=True
    ).to_dict()
    for place, name in enumerate(plan.names):
        expected = [math.nan if value is None else float(value) for value in theirs[name]]
        np.testing.assert_array_equal(ours.values[:, place], expected, err_msg=name)
    assert np.isfinite(ours.values).any()
    feast.teardown()
