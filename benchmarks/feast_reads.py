"""Reading batch features alone: ours against Feast's SDK, both from the same rows."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from redis.asyncio import Redis

from benchmarks.figures import Case, Figure, figure
from benchmarks.generator import account_name
from benchmarks.options import Options
from benchmarks.place import Place
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.commands import Commands
from stream_infer.store.feast_plan import ReadPlan
from stream_infer.store.feast_repo import connection_string

ACCOUNTS = 5_000
WARM_UP_CALLS = 5
CALLS_MIN = 8

Read = Callable[[], Awaitable[object]]


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure each reader at each number of entities."""
    plan = place.plan(ACCOUNTS)
    return asyncio.run(_measure(plan, place.repo, place.redis_url, options))


async def _measure(plan: ReadPlan, repo: Path, url: str, options: Options) -> list[Figure]:
    from feast import FeatureStore  # Late: takes seconds to import.

    store: Any = FeatureStore(repo_path=str(repo))
    store.config.online_store.connection_string = connection_string(url)
    reader = BatchFeatureReader(plan, cache_max_age_s=0.0)
    redis = Redis.from_url(url)
    commands = Commands(redis, timeout_s=10.0)
    service = store.get_feature_service(plan.service)
    random = np.random.default_rng(5)
    figures: list[Figure] = []
    for n in options.entities:
        names = [account_name(number) for number in random.integers(0, ACCOUNTS, n).tolist()]
        rows = [{"account": name} for name in names]

        async def ours(names: list[str] = names) -> object:
            return await reader.read(commands, {"account": names})

        async def sdk(rows: list[dict[str, str]] = rows) -> object:
            return store.get_online_features(features=service, entity_rows=rows)

        async def sdk_async(rows: list[dict[str, str]] = rows) -> object:
            return await store.get_online_features_async(features=service, entity_rows=rows)

        readers: dict[str, Read] = {
            "ours": ours,
            "get_online_features": sdk,
            "get_online_features_async": sdk_async,
        }
        for name, read in readers.items():
            took_s = await _timed(read, options.read_seconds)
            case: Case = {"entities": n, "reader": name}
            figures.append(figure("p50", float(np.percentile(took_s, 50)) * 1e6, "µs", case))
            figures.append(figure("p99", float(np.percentile(took_s, 99)) * 1e6, "µs", case))
            each = float(np.percentile(took_s, 50)) * 1e6 / n
            figures.append(figure("each entity", each, "µs", case))
    await redis.aclose()
    # `FeatureStore.close` does nothing about it.
    await store._get_provider().online_store._client_async.aclose()
    return figures


async def _timed(read: Read, seconds: float) -> list[float]:
    took_s: list[float] = []
    for _ in range(WARM_UP_CALLS):
        await read()
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s or len(took_s) < CALLS_MIN:
        start_s = time.perf_counter()
        await read()
        took_s.append(time.perf_counter() - start_s)
    return took_s
