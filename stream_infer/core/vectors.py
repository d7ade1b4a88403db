"""Assembling the models' vectors, with a reason for each input that is missing."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_infer.core.arrays import Bools, Floats, Ints
from stream_infer.core.columns import Batch
from stream_infer.core.inputs import BatchLayout, FieldsInput
from stream_infer.core.join import ABSENT, PRESENT, STALE, join
from stream_infer.core.stream import View
from stream_infer.core.topology import Topology

NO_AGE_US = -1
Reasons: TypeAlias = dict[str, Bools | None]
"""Where, bool[m], a reason holds; None: nowhere."""

STATE_UNAVAILABLE = "state_unavailable"
"""Why all streaming features are missing where the stored rows could not be read."""


class BatchColumns(Struct, frozen=True):
    """Batch features as read: `values` float64[m, F], `timestamps_us` int64[m, V] of each view."""

    values: Floats
    timestamps_us: Ints

    def take(self, keep: Bools) -> "BatchColumns":
        """Return the rows where `keep` bool[m] is true."""
        return BatchColumns(self.values[keep], self.timestamps_us[keep])


class Vectors(Struct, frozen=True):
    """Inputs of the scored events: `values` float64[m, F] in vector order, NaN where missing.

    `reasons` bool[m, R] says why, by `reason_names`; `age_us` int64[m] is the age of the oldest
    batch feature in use, at the event's time (NO_AGE_US where there is none).
    """

    values: Floats
    reasons: Bools
    reason_names: tuple[str, ...]
    age_us: Ints

    def lacking(self, reason: str) -> "Vectors":
        """Return the same vectors with one more reason, which holds for all of them."""
        everywhere = np.ones((len(self.reasons), 1), bool)
        reasons = np.concatenate([everywhere, self.reasons], axis=1)
        return Vectors(self.values, reasons, (reason, *self.reason_names), self.age_us)

    @property
    def model_input(self) -> npt.NDArray[np.float32]:
        """The values as the models take them, float32[m, F], contiguous."""
        return np.ascontiguousarray(self.values, np.float32)


class RekeyedValues(Struct, frozen=True):
    """What events found of a rekeyed view: `values` float64[m, F], NaN where missing or ahead.

    `missing` bool[m]: there is no row, or nothing in it within its horizon; `ahead` bool[m]: the
    row has seen events too far after this one. `age_s` float64[m], NaN where either: from the row's
    newest event to this one, by event time.
    """

    values: Floats
    missing: Bools
    ahead: Bools
    age_s: Floats

    def reasons(self, view: str) -> dict[str, Bools]:
        """Return why values are missing, by the reason's name."""
        return {f"missing:{view}": self.missing, f"ahead:{view}": self.ahead}


def assemble(
    topology: Topology,
    layout: BatchLayout | None,
    scored: Batch,
    view_values: Mapping[str, Floats],
    batch_columns: BatchColumns | None,
    rekeyed: Mapping[str, RekeyedValues] = MappingProxyType({}),
) -> Vectors:
    """Put fields, view features (float64[m, F_view] by view) and batch features side by side."""
    m = len(scored)
    parts: list[Floats] = []
    reasons: Reasons = {}
    age_us: Ints | None = None
    for item in topology.inputs:
        if isinstance(item, FieldsInput):
            lines = np.array([scored.column(name) for name in item.names])
            parts.append(lines.T)
            absent = np.isnan(lines)
            some_absent = np.count_nonzero(absent)
            for number, name in enumerate(item.names):
                reasons[f"missing:{name}"] = absent[number] if some_absent else None
        elif isinstance(item, View) and item.rekey:
            parts.append(rekeyed[item.name].values)
            reasons |= rekeyed[item.name].reasons(item.name)
        elif isinstance(item, View):
            parts.append(view_values[item.name])
            keys = scored.keys(item.by)
            reasons[f"missing:{item.name}"] = (
                np.array([key is None for key in keys], bool) if None in keys else None
            )
        elif layout is not None and batch_columns is not None:
            values, age_us = _join_batch(layout, scored, batch_columns, reasons)
            parts.append(values)
    known = np.zeros((m, len(reasons)), bool)
    for place, reason in enumerate(reasons.values()):
        if reason is not None:
            known[:, place] = reason
    return Vectors(
        np.concatenate(parts, axis=1) if parts else np.zeros((m, 0)),
        known,
        tuple(reasons),
        np.full(m, NO_AGE_US, np.int64) if age_us is None else age_us,
    )


def _join_batch(
    layout: BatchLayout, scored: Batch, columns: BatchColumns, reasons: Reasons
) -> tuple[Floats, Ints]:
    joined = join(
        columns.values,
        columns.timestamps_us,
        scored.times_us,
        layout.ttl_us,
        layout.view_of_feature,
    )
    values, status, age_us = joined
    null = np.isnan(values)
    some_null, some_unused = np.count_nonzero(null), np.count_nonzero(status)
    for number, view in enumerate(layout.views):
        of_view = status[:, number]
        reasons[f"missing:{view}"] = of_view == ABSENT if some_unused else None
        reasons[f"stale:{view}"] = of_view == STALE if some_unused else None
        reasons[f"null:{view}"] = None
        if some_null:
            nulls = null[:, layout.view_of_feature == number].any(axis=1)
            reasons[f"null:{view}"] = (of_view == PRESENT) & nulls
    if some_unused:
        age_us = np.where(status == PRESENT, age_us, NO_AGE_US)
    return values, np.maximum.reduce(age_us, axis=1, initial=NO_AGE_US)


def reason_texts(reasons: Bools, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return, for each row of `reasons` bool[m, R], the names of what is true."""
    texts: list[tuple[str, ...]] = [()] * len(reasons)
    if not np.count_nonzero(reasons):
        return texts
    known: dict[bytes, tuple[str, ...]] = {}
    packed = np.packbits(reasons, axis=1)
    for row in np.flatnonzero(reasons.any(axis=1)).tolist():
        bits = packed[row].tobytes()
        if bits not in known:
            known[bits] = tuple(name for name, on in zip(names, reasons[row], strict=True) if on)
        texts[row] = known[bits]
    return texts
