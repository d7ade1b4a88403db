"""Batch features as they were at each event's time, from the Parquet files behind a Feast store.

For training: the same plan, the same columns, and the numbers that serving would have read had the
store been materialised up to the event.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.errors import DeclarationError
from stream_infer.core.join import MISSING
from stream_infer.store.batch_features import BatchFeatures, Column
from stream_infer.store.feast_plan import PlanSource, PlanView, ReadPlan


class OfflineFeatures:
    """All rows of a plan's Parquet sources, in memory, readable at any time.

    `repo` is where relative paths of the sources start. Rows after `until` are left out: with the
    end of a materialisation there, every later event sees what serving sees. Raises
    DeclarationError where a source is no Parquet file or lacks a column.
    """

    def __init__(self, plan: ReadPlan, repo: Path, until: datetime | None = None) -> None:
        self.plan = plan.checked()
        until_us = None if until is None else round(until.timestamp() * 1_000_000)
        self._histories = [_History(view, Path(repo), until_us) for view in plan.views]

    def read(self, columns: Mapping[str, Column], times_us: NDArray[np.int64]) -> BatchFeatures:
        """Each of n events' latest rows that are not after it: values [n, F], timestamps [n, V].

        `columns` holds the plan's fields, n values each; `times_us` int64[n]. Age is not judged
        here, see `core.join`.
        """
        n = len(times_us)
        values = np.empty((n, len(self.plan.names)))
        timestamps_us = np.empty((n, len(self.plan.views)), np.int64)
        begin = 0
        for index, history in enumerate(self._histories):
            end = begin + history.values.shape[1]
            rows = history.rows_at(columns, times_us)
            values[:, begin:end] = history.values[rows]
            timestamps_us[:, index] = history.timestamps_us[rows]
            begin = end
        return BatchFeatures(values, timestamps_us)


class _History:
    """Rows of one view by entity and time; the last row is that of no entity."""

    def __init__(self, view: PlanView, repo: Path, until_us: int | None) -> None:
        self.fields = [key.field for key in view.join_keys]
        table = _read(view, repo)
        keys = _keys([table.column(key.name).to_pylist() for key in view.join_keys])
        source = _source(view)
        stamps = _microseconds(table.column(source.timestamp_field))
        self.entity_of: dict[Any, int] = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        entities = np.fromiter(map(self.entity_of.__getitem__, keys), np.int64, len(keys))
        # An event without a key has no features, whatever the source has under null.
        self.entity_of.pop(None, None)
        until_us = np.iinfo(np.int64).max if until_us is None else until_us
        chosen = np.flatnonzero(stamps <= until_us)
        order = chosen[np.lexsort((stamps[chosen], entities[chosen]))]
        self.moments = np.unique(stamps[order])
        self.places = self._place(entities[order], np.searchsorted(self.moments, stamps[order]))
        numbers = [_numbers(table.column(f.name), f.dtype)[order] for f in view.features]
        nothing = np.full(len(view.features), np.nan)
        self.values = np.vstack([np.column_stack(numbers), nothing])
        self.timestamps_us = np.append(stamps[order], MISSING)

    def rows_at(
        self, columns: Mapping[str, Column], times_us: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """int64[n]: the row of each event's entity that is the latest at its time."""
        keys = _keys([columns[field] for field in self.fields])
        get = self.entity_of.get
        entities = np.fromiter((get(key, -1) for key in keys), np.int64, len(keys))
        moments = np.searchsorted(self.moments, times_us, side="right") - 1
        # Rows stand in order of (entity, moment): the one before the event's place is the latest,
        # if it is the same entity's.
        rows = np.searchsorted(self.places, self._place(entities, moments), side="right") - 1
        first = np.searchsorted(self.places, self._place(entities, np.zeros_like(moments)))
        found = (entities >= 0) & (moments >= 0) & (rows >= first)
        return np.where(found, rows, len(self.places))

    def _place(self, entities: NDArray[np.int64], moments: NDArray[np.int64]) -> NDArray[np.int64]:
        return entities * (len(self.moments) + 1) + moments


def _source(view: PlanView) -> PlanSource:
    if view.source is None:
        raise DeclarationError(
            f"view {view.alias!r}", "its batch source is no Parquet file; training needs one"
        )
    return view.source


def _read(view: PlanView, repo: Path) -> Any:
    # Late: pyarrow comes with feast and only training needs it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = _source(view)
    wanted = [
        *(key.name for key in view.join_keys),
        source.timestamp_field,
        *(feature.name for feature in view.features),
    ]
    path = repo / source.path
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DeclarationError(f"view {view.alias!r}", f"source {source.path}: {error}") from error
    for name in wanted:
        if name not in table.column_names:
            raise DeclarationError(
                f"view {view.alias!r}",
                f"source {source.path} has no column {name!r}",
                name=name,
                choices=table.column_names,
            )
    return table.select(wanted)


def _keys(columns: list[Column]) -> list[Any]:
    return list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))


def _microseconds(column: Any) -> NDArray[np.int64]:
    import pyarrow as pa

    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    stamps = column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
    result: NDArray[np.int64] = stamps.to_numpy()
    return result


def _numbers(column: Any, dtype: str) -> NDArray[np.float64]:
    """float64[n] as serving returns it: NaN for null, rounded to the type that the store keeps."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers.astype(np.float32).astype(np.float64) if dtype == "FLOAT" else numbers
