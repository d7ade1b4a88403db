"""What the weather at the origin gains: the example's models with it and without, on one table.

`python -m topologies.weather_gain FOLDER` trains on January to September of 2013 and judges
October to December; FOLDER keeps what is prepared (that of the demo will do).
"""

import json
import sys
from pathlib import Path

import numpy as np

from features.prepare import prepare as prepare_features
from stream_infer.core.engine import Engine
from stream_infer.demo.flights import LIVE_FROM, LIVE_TO, YEAR_FROM, microseconds
from stream_infer.demo.training import BASELINE, PARTITIONS, without
from stream_infer.models.loading import load_ensemble
from stream_infer.models.repository import ModelRepository
from stream_infer.store.feast_repo import apply, load_plan
from stream_infer.store.offline_features import OfflineFeatures
from stream_infer.stream.partitioning import Partitioner
from stream_infer.training.fit import TrainingTable, train
from stream_infer.training.replay import Replay, read_lines
from topologies.flight_delay import topology as without_weather
from topologies.flight_weather import topology as with_weather
from topologies.flight_weather import weather_at_origin
from topologies.flights_data import EventLog
from topologies.flights_data import prepare as prepare_flights
from topologies.weather_data import prepare as prepare_weather


def table_of_the_year(folder: Path) -> TrainingTable:
    """Return vectors and labels of all departures of 2013, weather included."""
    assert with_weather.feast is not None
    repo = Path(with_weather.feast.repo)
    prepare_features(folder / "flights", repo)
    apply(repo)
    plan = load_plan(repo, with_weather.feast.service)
    past = OfflineFeatures(plan, repo, until=LIVE_FROM)
    choose = Partitioner()
    replay = Replay(
        Engine(with_weather, plan.layout()), past, lambda key: choose.partition(key, PARTITIONS)
    )
    flights = EventLog(prepare_flights(folder / "flights")).events_between(YEAR_FROM, LIVE_TO)
    weather = read_lines(str(prepare_weather(folder / "flights")), "origin")
    rows = replay.run_streams([flights, weather])
    return TrainingTable(rows.names, rows.values, rows.labels, rows.times_us)


def judged(table: TrainingTable, folder: Path, name: str) -> dict[str, float]:
    """Train on what was before LIVE_FROM; return the test RMSE of each model and the ensemble."""
    live = table.times_us >= microseconds(LIVE_FROM)
    past = TrainingTable(table.names, table.x[~live], table.y[~live], table.times_us[~live])
    repository = ModelRepository(folder)
    train(past, microseconds(LIVE_FROM), repository, name, baseline=BASELINE)
    declared = with_weather if name == with_weather.name else without_weather
    loaded = load_ensemble(folder, declared, table.names)
    labelled = live & ~np.isnan(table.y)
    scores = loaded.models.run(np.ascontiguousarray(table.x[labelled])).scores
    truth = table.y[labelled]

    def rmse(score: np.ndarray) -> float:
        return float(np.sqrt(np.mean((score - truth) ** 2)))

    each = {model: rmse(scores[:, i]) for i, model in enumerate(loaded.combiner.models)}
    return {**each, "ensemble": rmse(loaded.combiner.combine(scores)), "flights": len(truth)}


def main(folder: Path) -> None:
    """Print the test RMSE in minutes, with the weather and without, as one JSON object."""
    table = table_of_the_year(folder)
    models = folder / "models_weather_gain"
    found = {
        "with": judged(table, models, with_weather.name),
        "without": judged(
            without(table, set(weather_at_origin.feature_names)), models, without_weather.name
        ),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
