"""Durations as people write them ("90s", "10m", "1h", "7d") and as the core counts them (µs)."""

import re

from stream_infer.core.errors import DeclarationError

SECOND_US = 1_000_000
_UNITS_US = {
    "ms": 1_000,
    "s": SECOND_US,
    "m": 60 * SECOND_US,
    "h": 3_600 * SECOND_US,
    "d": 86_400 * SECOND_US,
}
_PATTERN = re.compile(r"(\d+)(ms|s|m|h|d)")


def microseconds(text: str, culprit: str = "duration") -> int:
    """Return the microseconds that `text` stands for.

    >>> microseconds("90s")
    90000000

    Raises DeclarationError, naming `culprit`, unless `text` is a positive whole number and a unit.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise DeclarationError(
            culprit,
            f"{text!r} is not a duration; write a positive whole number and ms, s, m, h or d",
        )
    return int(match[1]) * _UNITS_US[match[2]]


def text_of(duration_us: int) -> str:
    """Return the shortest text of a duration in microseconds.

    >>> text_of(5_400_000_000)
    '90m'
    """
    for unit, size in sorted(_UNITS_US.items(), key=lambda item: -item[1]):
        if duration_us % size == 0:
            return f"{duration_us // size}{unit}"
    return f"{duration_us / SECOND_US:g}s"
