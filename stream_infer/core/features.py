"""What a streaming feature is: a frozen description, and one constructor for each kind."""

from dataclasses import dataclass
from enum import Enum

from stream_infer.core.durations import microseconds
from stream_infer.core.errors import DeclarationError
from stream_infer.core.events import Event

MINUTE_US = 60_000_000
WINDOW_MIN_US = MINUTE_US
WINDOW_MAX_US = 30 * 86_400_000_000
TILES_PER_WINDOW = 60


class Kind(Enum):
    """How the events of a window become one number."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    STD = "std"
    EWM_MEAN = "ewm_mean"
    LAST = "last"
    SINCE_LAST = "since_last"
    DISTINCT = "distinct"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class Feature:
    """One streaming feature.

    `over_us` is the window, by event time; `of` are the event types that count (None: all that have
    the field); `include_self` lets an event see itself; `tile_us` is the resolution of the window
    (None: 1/60 of it); `numerator` and `denominator` name features of the same view (ratio only).
    """

    kind: Kind
    field: str | None = None
    over_us: int = 0
    of: tuple[type[Event], ...] | None = None
    include_self: bool = False
    tile_us: int | None = None
    half_life_us: int = 0
    precision: int = 0
    numerator: str = ""
    denominator: str = ""


Types = type[Event] | tuple[type[Event], ...] | None


def _windowed(
    kind: Kind,
    field: str | None,
    over: str,
    of: Types,
    include_self: bool,
    tile: str | None = None,
    half_life: str | None = None,
    precision: int = 0,
) -> Feature:
    culprit = f"{kind.value}({field!r})" if field else kind.value
    over_us = microseconds(over, culprit)
    if not WINDOW_MIN_US <= over_us <= WINDOW_MAX_US:
        raise DeclarationError(culprit, f"over={over!r} is outside 1m … 30d")
    tile_us = None if tile is None else microseconds(tile, culprit)
    if tile_us is not None and (over_us % tile_us or over_us // tile_us > 1440):
        raise DeclarationError(
            culprit, f"tile={tile!r} must divide over={over!r} into at most 1440 parts"
        )
    return Feature(
        kind=kind,
        field=field,
        over_us=over_us,
        of=of if of is None or isinstance(of, tuple) else (of,),
        include_self=include_self,
        tile_us=tile_us,
        half_life_us=0 if half_life is None else microseconds(half_life, culprit),
        precision=precision,
    )


def count(
    over: str, of: Types = None, *, include_self: bool = False, tile: str | None = None
) -> Feature:
    """Count the events in the window; 0 when there are none."""
    return _windowed(Kind.COUNT, None, over, of, include_self, tile)


def total(
    field: str, over: str, of: Types = None, *, include_self: bool = False, tile: str | None = None
) -> Feature:
    """Sum a field over the window, exactly, at its declared resolution; 0 when there are none."""
    return _windowed(Kind.SUM, field, over, of, include_self, tile)


def mean(
    field: str, over: str, of: Types = None, *, include_self: bool = False, tile: str | None = None
) -> Feature:
    """Mean of a field over the window; missing (NaN) when there are none."""
    return _windowed(Kind.MEAN, field, over, of, include_self, tile)


def minimum(
    field: str, over: str, of: Types = None, *, include_self: bool = False, tile: str | None = None
) -> Feature:
    """Smallest value of a field in the window; missing when there are none."""
    return _windowed(Kind.MIN, field, over, of, include_self, tile)


def maximum(
    field: str, over: str, of: Types = None, *, include_self: bool = False, tile: str | None = None
) -> Feature:
    """Largest value of a field in the window; missing when there are none."""
    return _windowed(Kind.MAX, field, over, of, include_self, tile)


def std(
    field: str, over: str, of: Types = None, *, include_self: bool = False, tile: str | None = None
) -> Feature:
    """Population standard deviation of a field over the window; missing when there are none."""
    return _windowed(Kind.STD, field, over, of, include_self, tile)


def ewm_mean(
    field: str,
    half_life: str,
    over: str = "30d",
    of: Types = None,
    *,
    include_self: bool = False,
) -> Feature:
    """Exponentially weighted mean, by event time; missing when no event is within `over`."""
    return _windowed(Kind.EWM_MEAN, field, over, of, include_self, half_life=half_life)


def last(field: str, over: str = "30d", of: Types = None, *, include_self: bool = False) -> Feature:
    """Value of the event with the latest event time (on a tie, the later offset) within `over`."""
    return _windowed(Kind.LAST, field, over, of, include_self)


def since_last(over: str = "30d", of: Types = None) -> Feature:
    """Seconds since the latest event, never negative; missing when it is older than `over`."""
    return _windowed(Kind.SINCE_LAST, None, over, of, include_self=False)


def distinct(
    field: str,
    over: str,
    of: Types = None,
    *,
    precision: int = 7,
    include_self: bool = False,
    tile: str | None = None,
) -> Feature:
    """Estimated number of different values in the window (HyperLogLog, 2**precision registers).

    The relative standard error is about 1.04 / sqrt(2**precision): 9 % at the default of 7.
    """
    if not 4 <= precision <= 12:
        raise DeclarationError(f"distinct({field!r})", f"precision={precision} is outside 4 … 12")
    return _windowed(Kind.DISTINCT, field, over, of, include_self, tile, precision=precision)


def ratio(numerator: str, denominator: str) -> Feature:
    """Quotient of two features of the same view; missing when the divisor is 0 or missing."""
    return Feature(Kind.RATIO, numerator=numerator, denominator=denominator)
