"""What more inputs gain: the example's models with them and without, trained on one table.

`python -m topologies.gain flight_weather FOLDER` (or `flight_network`) trains on January to
September of 2013 and judges October to December; FOLDER keeps what is prepared (that of the demo
will do).
"""

import json
import sys
from pathlib import Path

import numpy as np

from features.prepare import prepare as prepare_features
from stream_infer.core.engine import Engine
from stream_infer.core.topology import Topology
from stream_infer.demo.flights import LIVE_FROM, LIVE_TO, YEAR_FROM, microseconds
from stream_infer.demo.training import BASELINE, PARTITIONS, without
from stream_infer.models.loading import load_ensemble
from stream_infer.models.repository import ModelRepository
from stream_infer.store.feast_repo import apply, load_plan
from stream_infer.store.offline_features import OfflineFeatures
from stream_infer.stream.partitioning import Partitioner
from stream_infer.training.fit import TrainingTable, train
from stream_infer.training.replay import Replay, read_lines
from topologies import flight_delay, flight_network, flight_weather
from topologies.flights_data import EventLog
from topologies.flights_data import prepare as prepare_flights
from topologies.weather_data import prepare as prepare_weather

LESS = flight_delay.topology
MORE = {one.name: one for one in (flight_weather.topology, flight_network.topology)}


def table_of_the_year(topology: Topology, folder: Path) -> TrainingTable:
    """Return vectors and labels of all departures of 2013."""
    assert topology.feast is not None
    repo = Path(topology.feast.repo)
    prepare_features(folder / "flights", repo)
    apply(repo)
    plan = load_plan(repo, topology.feast.service)
    past = OfflineFeatures(plan, repo, until=LIVE_FROM)
    choose = Partitioner()
    replay = Replay(
        Engine(topology, plan.layout()), past, lambda key: choose.partition(key, PARTITIONS)
    )
    flights = EventLog(prepare_flights(folder / "flights")).events_between(YEAR_FROM, LIVE_TO)
    if topology is flight_weather.topology:
        weather = read_lines(str(prepare_weather(folder / "flights")), "origin")
        rows = replay.run_streams([flights, weather])
    else:
        rows = replay.run(flights)
    return TrainingTable(rows.names, rows.values, rows.labels, rows.times_us)


def judged(table: TrainingTable, folder: Path, topology: Topology) -> dict[str, float]:
    """Train on what was before LIVE_FROM; return the test RMSE of each model and the ensemble."""
    live = table.times_us >= microseconds(LIVE_FROM)
    past = TrainingTable(table.names, table.x[~live], table.y[~live], table.times_us[~live])
    train(past, microseconds(LIVE_FROM), ModelRepository(folder), topology.name, baseline=BASELINE)
    loaded = load_ensemble(folder, topology, table.names)
    labelled = live & ~np.isnan(table.y)
    scores = loaded.models.run(np.ascontiguousarray(table.x[labelled])).scores
    truth = table.y[labelled]

    def rmse(score: np.ndarray) -> float:
        return float(np.sqrt(np.mean((score - truth) ** 2)))

    each = {model: rmse(scores[:, i]) for i, model in enumerate(loaded.combiner.models)}
    return {**each, "ensemble": rmse(loaded.combiner.combine(scores)), "flights": len(truth)}


def main(name: str, folder: Path) -> None:
    """Print the test RMSE in minutes, with and without the further inputs, as one JSON object."""
    topology = MORE[name]
    table = table_of_the_year(topology, folder)
    known = {feature for view in LESS.views for feature in view.feature_names}
    views = (*topology.views, *topology.rekeyed)
    added = {feature for view in views for feature in view.feature_names} - known
    models = folder / "models_gain"
    found = {
        "with": judged(table, models, topology),
        "without": judged(without(table, added), models, LESS),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
