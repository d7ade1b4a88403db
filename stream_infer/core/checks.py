"""What must be so of decoded events; what is not is noted as the reason why one is set aside."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stream_infer.core.arrays import FEW, Floats, Ints
from stream_infer.core.stream import Stream

EARLIEST_US = 946_684_800_000_000  # 2000-01-01: an earlier event time is a broken clock
KEY_SEPARATOR = "\x1f"
KEY_LENGTH_MAX = 512


def check_times(
    stream: Stream,
    events: Sequence[Any],
    times_us: Ints,
    ingested_us: Ints | None,
    reasons: dict[int, str],
) -> None:
    """Check event times; they are not bounded from above where `ingested_us` is None."""
    if len(events) <= FEW and _few_times_are_fine(times_us, ingested_us, stream.max_ahead_us):
        return
    wrong = times_us < EARLIEST_US
    if ingested_us is not None:
        wrong |= times_us > ingested_us + stream.max_ahead_us
    if not np.count_nonzero(wrong):
        return
    for i in np.flatnonzero(wrong).tolist():
        if i not in reasons:
            moment = getattr(events[i], stream.time).isoformat()
            reasons[i] = (
                f"{stream.time} is {moment}, "
                + ("before 2000" if times_us[i] < EARLIEST_US else "ahead of its record")
                + "; a clock is wrong"
            )


def _few_times_are_fine(times_us: Ints, ingested_us: Ints | None, max_ahead_us: int) -> bool:
    times = times_us.tolist()
    if min(times) < EARLIEST_US:
        return False
    if ingested_us is None:
        return True
    pairs = zip(times, ingested_us.tolist(), strict=True)
    return all(time_us <= bound_us + max_ahead_us for time_us, bound_us in pairs)


def check_numbers(stream: Stream, column: Callable[[str], Floats], reasons: dict[int, str]) -> None:
    """Check that no number is beyond its limit; `column` returns a field's, NaN where missing."""
    names, limits, _ = stream.checks
    if not names:
        return
    found = [column(name) for name in names]
    if len(names) * len(found[0]) <= FEW and _few_numbers_are_fine(found, limits):
        return
    columns = np.array(found)
    wrong = np.abs(columns) >= limits
    if not np.count_nonzero(wrong):
        return
    for number, i in np.argwhere(wrong).tolist():
        name, limit = names[number], limits[number, 0]
        remedy = "no model takes such a number"
        if name in stream.summed_fields:
            remedy = "declare a coarser resolution for it if it is right"
        reasons.setdefault(i, f"{name} is {columns[number, i]:g}, beyond {limit:g}; {remedy}")


def _few_numbers_are_fine(columns: Sequence[Floats], limits: Floats) -> bool:
    pairs = zip(columns, limits.tolist(), strict=True)
    return not any(abs(x) >= limit for column, (limit,) in pairs for x in column.tolist())


def check_texts(
    stream: Stream, labels: Callable[[str], list[str | None]], reasons: dict[int, str]
) -> None:
    """Check keys and ids; `labels` returns a field's texts."""
    for name in stream.checks.texts:
        texts = labels(name)
        if all(texts) and _are_fine(texts):  # type: ignore[arg-type]
            continue
        for i, text in enumerate(texts):
            if text is None:
                continue
            if not text and name in (stream.key, stream.event_id):
                reasons.setdefault(i, f"{name} is empty; it is the stream's key or event id")
            elif len(text) > KEY_LENGTH_MAX:
                reasons.setdefault(i, f"{name} has {len(text)} characters, over {KEY_LENGTH_MAX}")
            elif KEY_SEPARATOR in text:
                reasons.setdefault(i, f"{name} contains the control character U+001F")


def _are_fine(texts: list[str]) -> bool:
    return max(map(len, texts)) <= KEY_LENGTH_MAX and KEY_SEPARATOR not in "".join(texts)
