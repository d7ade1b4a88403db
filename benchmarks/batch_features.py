"""The batch features in Redis: applied by Feast, a few rows written by it, the many others alike.

Feast needs minutes for a million rows. It materialises the first ones, and what is written here for
these accounts must be the same, byte by byte; the other rows are then written the same way.
"""

import shutil
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from redis import Redis

from benchmarks.generator import account_name
from stream_infer.store.feast_plan import ReadPlan
from stream_infer.store.feast_repo import apply_and_materialize, load_plan
from stream_infer.store.feast_wire import entity_keys, feature_field, timestamp_field

SOURCE = Path(__file__).with_name("features")
FEATURES = 8
BY_FEAST = 200
CHUNK = 5_000


def values_of(start: int, stop: int) -> npt.NDArray[np.float64]:
    """The features float64[n, 8] of accounts `start` to `stop`."""
    numbers = np.arange(start, stop, dtype=np.float64)[:, None]
    return 1.0 + np.sin(numbers * 0.37 + np.arange(FEATURES) * 1.7)


def prepare(folder: Path, redis_url: str, accounts: int, now: datetime) -> ReadPlan:
    """Put a copy of the Feast repository at `folder`, and all rows in Redis; return the read plan.

    Raises ValueError where Feast's rows are not what is written here.
    """
    import pandas as pd  # Late: comes with Feast, and takes as long.

    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (folder / "data").mkdir()
    table = pd.DataFrame(values_of(0, BY_FEAST), columns=[f"habit_{i}" for i in range(FEATURES)])
    table["account"] = [account_name(number) for number in range(BY_FEAST)]
    table["event_timestamp"] = pd.Timestamp(now.replace(microsecond=0)).as_unit("us")
    table.to_parquet(folder / "data" / "history.parquet", index=False)
    apply_and_materialize(folder, datetime.now(UTC), redis_url)
    plan = load_plan(folder, "standard")
    with Redis.from_url(redis_url) as redis:
        _check(redis, plan, now)
        write_rows(redis, plan, BY_FEAST, accounts, now)
    return plan


def write_rows(redis: Any, plan: ReadPlan, start: int, stop: int, now: datetime) -> None:
    """Write the rows of accounts `start` to `stop` as Feast lays them out."""
    for first in range(start, stop, CHUNK):
        pipeline = redis.pipeline(transaction=False)
        for key, fields in _rows(plan, first, min(first + CHUNK, stop), now):
            pipeline.execute_command("HSET", key, *(part for pair in fields for part in pair))
        pipeline.execute()


def _rows(
    plan: ReadPlan, start: int, stop: int, now: datetime
) -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
    view = plan.views[0]
    key_of = entity_keys(plan.project, view.join_keys)
    names = [feature_field(view.name, feature.name) for feature in view.features]
    stamp = (timestamp_field(view.name), _timestamp(int(now.timestamp())))
    packed = [struct.Struct("<Bd").pack] * len(names)
    rows = []
    for number, values in enumerate(values_of(start, stop).tolist(), start):
        key = key_of(account_name(number))
        assert key is not None
        cells = [(n, pack(0x29, v)) for n, pack, v in zip(names, packed, values, strict=True)]
        rows.append((key, [*cells, stamp]))
    return rows


def _timestamp(seconds: int) -> bytes:
    """A serialised protobuf Timestamp of whole seconds."""
    digits = [0x08]
    while seconds >= 0x80:
        digits.append(seconds & 0x7F | 0x80)
        seconds >>= 7
    return bytes([*digits, seconds])


def _check(redis: Any, plan: ReadPlan, now: datetime) -> None:
    for key, fields in _rows(plan, 0, BY_FEAST, now):
        if redis.hgetall(key) != dict(fields):
            raise ValueError(f"Feast wrote another row than the benchmark would: {key!r}")
