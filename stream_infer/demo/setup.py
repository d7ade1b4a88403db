"""The steps from nothing to a topology that can run: data, features, models; each made once."""

import contextlib
import time
from pathlib import Path

from stream_infer.core.errors import StreamInferError
from stream_infer.demo.cache import Stamps, fingerprint
from stream_infer.demo.flights import (
    LIVE_FROM,
    TOPOLOGY,
    event_log,
    mean_gain_min,
    require_example,
)
from stream_infer.demo.prepared import Prepared, engine_of, models_fingerprint
from stream_infer.demo.progress import Report
from stream_infer.loading import load_topology
from stream_infer.store.feast_plan import stored_plan

FEATURES_MARK = "si:demo:features"


def prepare_data(data_dir: Path, report: Report) -> Prepared:
    """Write the year's events and their baseline's mean gain; about 5 s the first time."""
    require_example()
    topology = load_topology(TOPOLOGY)
    stamps = Stamps(data_dir / "steps.json")
    started_s = time.monotonic()
    log = event_log(data_dir, report)
    made = Prepared(topology, log, data_dir, data_dir / "models")
    made_from = fingerprint([], [], str(log.paths.columns.name), LIVE_FROM.isoformat())
    gain = stamps.get("baseline", made_from)
    if gain is None:
        report("measuring the baseline", 1.0)
        gain = mean_gain_min(log)
        stamps.put("baseline", made_from, gain)
        made.seconds["data"] = round(time.monotonic() - started_s, 3)
    made.mean_gain_min = gain
    return made


def prepare_features(made: Prepared, redis_url: str, report: Report) -> None:
    """Make the Parquet sources, apply the Feast repository, write its rows of LIVE_FROM to Redis.

    Redis itself remembers which rows it holds, so that an emptied one is filled again.
    """
    from redis.exceptions import RedisError

    from stream_infer.store.connection import connect_blocking
    from stream_infer.store.feast_repo import apply_and_materialize

    made_from = fingerprint([made.repo], ["feast"], str(made.log.paths.columns.name))
    assert made.topology.feast is not None
    with contextlib.closing(connect_blocking(redis_url)) as redis:
        try:
            there = redis.get(FEATURES_MARK) == made_from.encode()
        except RedisError as error:
            raise StreamInferError(f"no Redis answers at the given address: {error}") from error
        if there and stored_plan(made.repo, made.topology.feast.service) is not None:
            return
        with made.step("features"):
            _write_sources(made, made_from, report)
            apply_and_materialize(made.repo, LIVE_FROM, redis_url, report)
            redis.set(FEATURES_MARK, made_from)


def _write_sources(made: Prepared, made_from: str, report: Report) -> None:
    # Late: the example is no part of the package.
    from features.prepare import prepare

    stamps = Stamps(made.data_dir / "steps.json")
    written = stamps.get("sources", made_from)
    if written is None or not all(Path(path).exists() for path in written):
        paths = prepare(made.data_dir / "flights", made.repo, progress=report)
        stamps.put("sources", made_from, [str(path) for path in paths])


def prepare_models(made: Prepared, report: Report) -> None:
    """Replay January to September through the kernel and train the models on it; under a minute."""
    from stream_infer.models.loading import load_ensemble

    engine = engine_of(made)
    stamps = Stamps(made.data_dir / "steps.json")
    made_from = models_fingerprint(made)
    if stamps.get("models", made_from) is not None:
        # A repository that somebody emptied or damaged since is filled again.
        with contextlib.suppress(StreamInferError):
            load_ensemble(made.models_dir, made.topology, engine.vector_names)
            return
    # Late: only a first start trains.
    from stream_infer.demo.training import train_flights, training_table

    with made.step("training set"):
        table = training_table(made, report)
    with made.step("models"):
        summary = train_flights(table, made.models_dir, made.topology.name, report)
    stamps.put("models", made_from, summary)
