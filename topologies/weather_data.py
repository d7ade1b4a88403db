"""Hourly weather of New York's airports in 2013, as the event log of a stream beside the flights.

`python -m topologies.weather_data FOLDER` writes it and prints its path.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from topologies.flights_data import replacing
from topologies.flights_source import source_path

VERSION = 1
REPORTED_AFTER_MIN = 55
"""The table names the hour in which a report was made; regular ones are made in its 51st minute.

Reports count from when they are known for certain, so that no flight sees the future.
"""
COLUMNS = {
    "temp": "temperature_f",
    "dewp": "dew_point_f",
    "humid": "humidity_percent",
    "wind_speed": "wind_speed_mph",
    "wind_gust": "gust_mph",
    "precip": "precipitation_in",
    "pressure": "pressure_mb",
    "visib": "visibility_mi",
}
KNOTS_MPH_MAX = 200.0
"""The table has one wind of 1,048 mph: above this, a value is an error of the source."""


def prepare(directory: Path) -> Path:
    """Write the reports as lines, in order of time, then origin, unless they are there already."""
    path = Path(directory) / f"weather-v{VERSION}.ndjson"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        for event in reports(read_weather()):
            file.write(msgspec.json.encode(event) + b"\n")
    return path


def read_weather() -> Any:
    """The source table as a pandas data frame; its `time_hour` is in UTC."""
    # Late: pandas comes with feast and is needed only while data is prepared.
    import pandas as pd

    return pd.read_csv(source_path("weather.csv"))


def reports(weather: Any) -> list[dict[str, Any]]:
    """Return the reports as events; what the table lacks is null."""
    hours = weather["time_hour"].str.slice(0, 13).to_numpy(dtype=str).astype("datetime64[h]")
    known = hours.astype("datetime64[m]") + np.timedelta64(REPORTED_AFTER_MIN, "m")
    columns: dict[str, list[float | None]] = {}
    for name, field in COLUMNS.items():
        values = weather[name].to_numpy(np.float64)
        wrong = np.isnan(values)
        if field in ("wind_speed_mph", "gust_mph"):
            wrong |= values > KNOTS_MPH_MAX
        columns[field] = [
            None if missing else round(value, 2)
            for value, missing in zip(values.tolist(), wrong.tolist(), strict=True)
        ]
    origins = weather["origin"].tolist()
    texts = np.datetime_as_string(known, unit="s").tolist()
    events = [
        {
            "type": "observation",
            "origin": origin,
            "at": f"{text}Z",
            **{field: values[i] for field, values in columns.items()},
        }
        for i, (origin, text) in enumerate(zip(origins, texts, strict=True))
    ]
    return sorted(events, key=lambda event: (event["at"], event["origin"]))


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1])))
