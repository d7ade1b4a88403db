"""A topology with everything it runs on: its engine, its batch-feature reader, its models."""

from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from stream_infer.core.combiners import WeightedMean
from stream_infer.core.engine import Engine
from stream_infer.core.predictions import Scored
from stream_infer.core.topology import Topology
from stream_infer.core.vectors import Vectors
from stream_infer.models.calling import caller
from stream_infer.models.ensemble import ModelSet, Running
from stream_infer.models.loading import load_ensemble
from stream_infer.settings import Settings
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.feast_plan import ReadPlan
from stream_infer.store.feast_repo import load_plan
from stream_infer.store.key_feed import KeyFeed
from stream_infer.stream.failures import FailureLog

FEED_INTERVAL_MIN_S = 0.05
FEED_INTERVAL_MAX_S = 5.0


@dataclass(frozen=True)
class Runtime:
    """What worker and server share of one topology; `versions` names each model's version."""

    topology: Topology
    engine: Engine
    plan: ReadPlan | None
    models: ModelSet
    combiner: WeightedMean
    versions: dict[str, str]
    failures: FailureLog = field(default_factory=FailureLog)

    def begin(self, vectors: Vectors) -> Running:
        """Let each model begin to run over all vectors.

        All together, they hold who waits for them up for `model_timeout_ms` at most.
        """
        return self.models.begin(vectors.model_input)

    def scored(self, running: Running) -> Scored:
        """Wait for the models' scores and combine them; log the failures, not too often."""
        result = running.scores()
        if result.failures:
            self.failures.note(self.topology.name, result.failures, result.details)
        combined = self.combiner.combine(result.scores)
        return Scored(self.combiner.models, result.scores, combined, result.failures)

    def score(self, vectors: Vectors) -> Scored:
        """Run each model once over all vectors."""
        return self.scored(self.begin(vectors))

    def reader(self, settings: Settings) -> BatchFeatureReader | None:
        """Return a reader of the topology's batch features, None where it has none."""
        if self.plan is None:
            return None
        return BatchFeatureReader(
            self.plan,
            cache_rows=settings.batch_cache_rows_max,
            cache_max_age_s=settings.batch_cache_age_s,
        )

    def feed(
        self, reader: BatchFeatureReader | None, redis: Redis, settings: Settings
    ) -> KeyFeed | None:
        """Return what tells a reader of changes once it is started, None where nothing does."""
        age_s = settings.batch_cache_age_s
        if reader is None or not settings.batch_cache_follow or age_s == 0:
            return None
        return KeyFeed(
            redis,
            reader,
            interval_s=min(max(age_s / 5, FEED_INTERVAL_MIN_S), FEED_INTERVAL_MAX_S),
            timeout_s=settings.request_timeout_s,
        )


def build_runtime(topology: Topology, settings: Settings) -> Runtime:
    """Load and check everything a topology needs; nothing connects.

    Raises DeclarationError or ModelError, naming the culprit, when a part is missing or does not
    fit another.
    """
    plan = load_plan(Path(topology.feast.repo), topology.feast.service) if topology.feast else None
    engine = Engine(topology, plan.layout() if plan is not None else None)
    loaded = load_ensemble(
        Path(settings.models_dir),
        topology,
        engine.vector_names,
        call=caller(settings.model_timeout_ms),
    )
    return Runtime(topology, engine, plan, loaded.models, loaded.combiner, loaded.versions)
