"""The join of batch features with events: what is absent or too old is NaN, with the reason."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MISSING: int = int(np.iinfo(np.int64).min)
"""The timestamp of an entity that the store does not have."""

PRESENT, ABSENT, STALE = 0, 1, 2
"""What became of a view for one event: in use, not in the store, or older than its time to live."""

REASONS = ("present", "missing", "stale")


class Joined(NamedTuple):
    """Batch features as an event may see them.

    `values` float64[n, F], NaN where the feature is null, missing or stale; `state` uint8[n, V],
    one of PRESENT, ABSENT, STALE; `age_us` int64[n, V], -1 where the view has no row.
    """

    values: NDArray[np.float64]
    state: NDArray[np.uint8]
    age_us: NDArray[np.int64]


def join(
    values: NDArray[np.float64],
    timestamps_us: NDArray[np.int64],
    times_us: NDArray[np.int64],
    ttl_us: NDArray[np.int64],
    view_of: NDArray[np.int64],
) -> Joined:
    """Judge every view's row at its event's time and blank what may not be used.

    `values` float64[n, F]; `timestamps_us` int64[n, V], MISSING where the store has no row;
    `times_us` int64[n], the events' times; `ttl_us` int64[V], 0 for no limit; `view_of` int64[F],
    the view that each feature belongs to. A row exactly as old as its time to live is in use; a row
    from after the event has age 0. Arguments are left as they are; `values` comes back itself when
    nothing had to be blanked.
    """
    if timestamps_us.size == 0:
        return Joined(values, np.zeros(timestamps_us.shape, np.uint8), timestamps_us)
    missing = timestamps_us == MISSING
    some_missing = np.count_nonzero(missing)
    known_us = np.where(missing, 0, timestamps_us) if some_missing else timestamps_us
    age_us = np.maximum(times_us[:, None] - known_us, 0)
    stale = age_us > ttl_us
    if not some_missing and not np.count_nonzero(stale):
        return Joined(values, stale.view(np.uint8), age_us)
    stale &= ttl_us > 0
    state = stale.view(np.uint8) * np.uint8(STALE)
    if some_missing:
        state[missing] = ABSENT
        age_us[missing] = -1
    if np.count_nonzero(state):
        values = np.where((state != PRESENT)[:, view_of], np.nan, values)
    return Joined(values, state, age_us)
