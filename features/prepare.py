"""Parquet sources of the flight batch views: what was known at the start of each month."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from topologies import flights_data
from topologies.flights_source import source_path

REPOSITORY = Path(__file__).parent
BEFORE_THE_YEAR = datetime(2012, 12, 31, tzinfo=UTC)
SNAPSHOTS = tuple(datetime(2013, month, 1, tzinfo=UTC) for month in range(1, 11))
"""First of each month up to October, the last that serving uses: later flights are the test."""

Summary = Callable[[Any, int], Any]


def prepare(
    events_directory: Path,
    repository: Path = REPOSITORY,
    snapshots: Sequence[datetime] = SNAPSHOTS,
    progress: flights_data.Progress | None = None,
) -> list[Path]:
    """Write `data/*.parquet` under `repository` and return the files.

    The event log is prepared in `events_directory` where it is not there yet. A snapshot holds only
    what flights that had arrived before it tell.
    """
    # Late: pandas comes with feast and is needed only while data is prepared.
    import pandas as pd

    report = progress or (lambda stage, part: None)
    paths = flights_data.prepare(events_directory, progress)
    report("summarising the flights for batch features", 0.0)
    columns = ["at", "origin", "dest", "carrier", "departure_delay_min", "gain_min", "air_time_min"]
    events = pd.read_parquet(paths.columns, columns=["type", *columns])
    arrivals = events.loc[events["type"] == "arrival", columns]
    airports = pd.read_csv(source_path("airports.csv"))
    tables = {
        "plane": planes(pd.read_csv(source_path("planes.csv"))),
        "route": snapshot_each(arrivals, snapshots, routes),
        "airport": snapshot_each(arrivals, snapshots, partial(airport_rows, airports)),
        "carrier": snapshot_each(arrivals, snapshots, carriers),
    }
    written = []
    for name, table in tables.items():
        path = Path(repository) / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with flights_data.replacing(path) as part:
            table.to_parquet(part, index=False)
        written.append(path)
    report("summarising the flights for batch features", 1.0)
    return written


def snapshot_each(arrivals: Any, snapshots: Sequence[datetime], summary: Summary) -> Any:
    """Rows of `summary` for each moment, made of the arrivals before it and stamped with it.

    `summary` gets them and the days they are of: a count that only grows would tell the models how
    late in the year it is, and nothing else.
    """
    import pandas as pd

    tables = []
    for moment in snapshots:
        days = max((moment - SNAPSHOTS[0]).days, 1)
        rows = summary(arrivals[arrivals["at"] < moment], days)
        tables.append(rows.assign(event_timestamp=pd.Timestamp(moment).as_unit("us")))
    return pd.concat(tables, ignore_index=True)


def planes(table: Any) -> Any:
    """One row a plane: age at the start of 2013 in years (null where unknown), seats, engines."""
    import pandas as pd

    rows = pd.DataFrame(
        {
            "tail_number": table["tailnum"],
            "age_years": (2013 - table["year"]).astype("float32"),
            "seats": table["seats"].astype("Int64"),
            "engines": table["engines"].astype("Int32"),
        }
    )
    return rows.assign(event_timestamp=pd.Timestamp(BEFORE_THE_YEAR).as_unit("us"))


def routes(seen: Any, days: int) -> Any:
    """One row a route with arrivals: mean and spread of the gain, flights, time in the air.

    The spread of a single flight is null.
    """
    groups = seen.groupby(["origin", "dest"], observed=True)
    rows = groups.agg(
        gain_mean=("gain_min", "mean"),
        gain_std=("gain_min", "std"),
        flights_per_day=("gain_min", "size"),
        air_time_mean=("air_time_min", "mean"),
    ).reset_index()
    rows["flights_per_day"] /= days
    return rows.astype({"origin": object, "dest": object})


def airport_rows(airports: Any, seen: Any, days: int) -> Any:
    """One row an airport on the map or with arrivals: position, arrivals, their mean gain."""
    positions = airports.rename(
        columns={"faa": "airport", "lat": "latitude", "lon": "longitude", "alt": "altitude_ft"}
    )[["airport", "latitude", "longitude", "altitude_ft"]]
    history = (
        seen.groupby("dest", observed=True)
        .agg(arrivals_gain_mean=("gain_min", "mean"), arrivals_per_day=("gain_min", "size"))
        .reset_index()
        .rename(columns={"dest": "airport"})
        .astype({"airport": object})
    )
    rows = positions.merge(history, on="airport", how="outer")
    rows["arrivals_per_day"] = rows["arrivals_per_day"].fillna(0) / days
    return rows.astype({"altitude_ft": "Int32"})


def carriers(seen: Any, days: int) -> Any:
    """One row an airline with arrivals: mean gain, mean delay at departure, flights."""
    rows = (
        seen.groupby("carrier", observed=True)
        .agg(
            gain_mean=("gain_min", "mean"),
            delay_mean=("departure_delay_min", "mean"),
            flights_per_day=("gain_min", "size"),
        )
        .reset_index()
    )
    rows["flights_per_day"] /= days
    return rows.astype({"carrier": object})


if __name__ == "__main__":
    for file in prepare(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "data"):
        print(file)
