"""The flight example's dates, and what is computed from its events besides features."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stream_infer.core.errors import SettingsError

TOPOLOGY = "flight_delay"
YEAR_FROM = datetime(2013, 1, 1, tzinfo=UTC)
WARM_UP_DAYS = 30
"""How long before what counts the log starts: the longest horizon of a feature."""
LIVE_FROM = datetime(2013, 10, 1, tzinfo=UTC)
"""Models and batch features are made of what happened before; errors count from here."""
WARM_UP_FROM = LIVE_FROM - timedelta(days=WARM_UP_DAYS)
LIVE_TO = datetime(2014, 1, 3, tzinfo=UTC)
"""After the arrival of the year's last flight."""


class FlightEvent(msgspec.Struct, frozen=True, gc=False):
    """What the demo itself reads of an event; `arrival_delay_min` is None in a departure."""

    flight_id: str
    departure_delay_min: float
    arrival_delay_min: float | None = None


decode_event = msgspec.json.Decoder(FlightEvent).decode


def microseconds(moment: datetime) -> int:
    """Return a moment as microseconds since the epoch."""
    return round(moment.timestamp() * 1_000_000)


def require_example() -> None:
    """Raise SettingsError outside a clone of the repository, where the example lies."""
    if not (Path("topologies") / f"{TOPOLOGY}.py").is_file():
        raise SettingsError(
            "the flight example is not here: run this in the folder of a clone of stream-infer"
        )


def event_log(data_dir: Path, report: Any = None) -> Any:
    """Return the year's events, prepared under `data_dir` where they are not there yet."""
    # Late: the example is no part of the package.
    from topologies.flights_data import EventLog, prepare

    return EventLog(prepare(data_dir / "flights", report))


def mean_gain_min(log: Any) -> float:
    """Return the mean of arrival delay − departure delay, in minutes, before LIVE_FROM."""
    gain = log.columns(YEAR_FROM, LIVE_FROM)["gain_min"]
    return float(np.nanmean(np.asarray(gain, np.float64)))
