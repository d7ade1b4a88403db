"""How the pure step's cost grows: with features, models, resolutions, keys, batch size."""

from collections.abc import Iterator, Sequence
from functools import partial

from redis import Redis

from benchmarks.core import BATCH_SIZES, batches, stages
from benchmarks.figures import Case, Figure, figure
from benchmarks.generator import Keys, account_name
from benchmarks.models import graphs
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.standard import Payment
from benchmarks.standard import topology as standard
from benchmarks.step import Step
from stream_infer import Stream, Topology, count, fields, total, weighted_mean
from stream_infer.core.features import Feature

KEYS = 5_000
BATCH = 2_000
FEATURES = (4, 8, 16, 32, 64)
MODELS = (1, 2, 4, 8, 16)
RESOLUTIONS = (1, 2, 4, 8)
KEY_COUNTS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
RESIDENT_MAX = 1_000_000
"""Above this, memory ends in the simulation: other rows come as bytes, as if from Redis."""
_TILES_S = (2, 3, 5, 10, 15, 20, 30, 60)
_FEATURES_OF_RESOLUTIONS = 8


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure each curve, on which only one thing grows; all but the last without Feast."""
    figures: list[Figure] = []
    for curve, x, step, keys in _points(options):
        step.fill([account_name(number) for number in range(min(keys, RESIDENT_MAX))])
        found = batches(step, Keys(keys), BATCH, options.curve_events)
        case: Case = {"curve": curve, "x": x}
        figures += [*stages(found, BATCH, case), *_sizes(step, case)]
    plan = place.plan(KEYS)
    with Redis.from_url(place.redis_url) as redis:
        step = Step(standard, graphs, plan=plan, redis=redis)
        step.fill([account_name(number) for number in range(KEYS)])
        for size in BATCH_SIZES[: options.curve_points_max]:
            found = batches(step, Keys(KEYS), size, options.curve_events)
            figures += stages(found, size, {"curve": "batch size", "x": size})
    return figures


def _points(options: Options) -> Iterator[tuple[str, int, Step, int]]:
    most = options.curve_points_max
    for number in FEATURES[:most]:
        yield "features", number, Step(_job(_windows(number)), graphs), KEYS
    for number in MODELS[:most]:
        job = _job(_windows(4), models=number)
        yield "models", number, Step(job, partial(_forests, number)), KEYS
    for number in RESOLUTIONS[:most]:
        yield "resolutions", number, Step(_job(_rings(number)), graphs), KEYS
    for number in KEY_COUNTS[:most]:
        resident = RESIDENT_MAX if number > RESIDENT_MAX else None
        yield "keys", number, Step(_job(_windows(4)), graphs, rows_max=resident), number


def _sizes(step: Step, case: Case) -> list[Figure]:
    (view,) = step.topology.views
    return [figure("row", view.plan.row_bytes, "bytes", case)]


def _job(features: dict[str, Feature], models: int = 0) -> Topology:
    """A topology with these features alone."""
    stream = Stream("growth.events", Payment, key="account", time="at", lateness="1m")
    view = stream.view("by_account", by=["account"], features=features)
    names = [f"trees_{number}" for number in range(models)] or ["linear", "trees", "mlp"]
    return Topology(
        name="growth",
        on=Payment,
        inputs=[fields("amount", "items"), view],
        graph=weighted_mean(dict.fromkeys(names, 1.0 / len(names))),
        output="growth.predictions",
    )


def _forests(number: int, features: Sequence[str]) -> dict[str, bytes]:
    """As many models as asked for, each of 100 trees."""
    return {f"trees_{seed}": graphs(features, seed=seed)["trees"] for seed in range(number)}


def _windows(number: int) -> dict[str, Feature]:
    """Counts and sums over more and more windows, all on the same tiles of a minute."""
    features: dict[str, Feature] = {}
    for minutes in range(29, 29 + number // 2):
        features[f"payments_{minutes}m"] = count(over=f"{minutes}m", tile="1m")
        features[f"spent_{minutes}m"] = total("amount", over=f"{minutes}m", tile="1m")
    return features


def _rings(number: int) -> dict[str, Feature]:
    """Eight sums over windows of up to 60 tiles, the tiles of so many widths."""
    each = _FEATURES_OF_RESOLUTIONS // number
    return {
        f"spent_{tile_s}s_{part}": total(
            "amount", over=f"{(60 - part) * tile_s}s", tile=f"{tile_s}s"
        )
        for tile_s in _TILES_S[:number]
        for part in range(each)
    }
