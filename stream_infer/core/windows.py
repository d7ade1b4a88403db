"""From declared features to a plan: what a row stores, and how each feature is answered from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from stream_infer.core.aggregates import Aggregate, Column, Question, Stored
from stream_infer.core.aggregates_decayed import Decayed
from stream_infer.core.aggregates_distinct import Registers
from stream_infer.core.aggregates_extremes import Extremes
from stream_infer.core.aggregates_latest import Latest
from stream_infer.core.aggregates_sums import PARTS_OF, Sums
from stream_infer.core.arrivals import UPDATED, Source
from stream_infer.core.errors import DeclarationError
from stream_infer.core.events import Event, fields_of, tag_of
from stream_infer.core.features import TILES_PER_WINDOW, Feature, Kind
from stream_infer.core.panes import Ring
from stream_infer.core.sums_table import SumsTable

FORMAT = 1
RESOLUTION_DEFAULT = 1e-6
ROW_BYTES_MAX = 1 << 20
TILED = {*PARTS_OF, Kind.MIN, Kind.MAX, Kind.DISTINCT}


@dataclass(frozen=True)
class ViewPlan:
    """How the features of one view are stored and computed.

    `features` are the names, in the order of the columns of an answer. Rows have `row_dtype`, of
    `row_bytes`; their `updated_us` is the latest event time folded. A row that saw nothing for
    `horizon_us` of event time answers as an empty one does. Rows written under another `schema`
    mean something else. `stored` is what rows are made of: `sums` are its counts and sums, and
    `aggregates` all others. `asked` holds, by column, what is asked of which of the others, and
    `ratios` the columns of quotient, numerator and denominator.
    """

    name: str
    features: tuple[str, ...]
    row_dtype: np.dtype[np.void]
    row_bytes: int
    horizon_us: int
    schema: str
    stored: tuple[Stored, ...]
    sums: SumsTable
    aggregates: tuple[Aggregate, ...]
    asked: tuple[tuple[int, tuple[Aggregate, Question]], ...]
    ratios: tuple[tuple[int, int, int], ...]


def plan_view(
    name: str,
    features: Mapping[str, Feature],
    event_types: tuple[type[Event], ...],
    lateness_us: int,
    resolution: Mapping[str, float],
) -> ViewPlan:
    """Plan a view over a stream of `event_types`, whose events are late by up to `lateness_us`.

    `resolution` is the step at which a field is summed (1e-6 where it says nothing). Raises
    DeclarationError, naming the feature, for fields, event types and ratios that do not fit.
    """
    names = tuple(features)
    rings = _rings(features.values(), lateness_us)
    aggregates: dict[tuple[object, ...], Sums | Aggregate] = {}
    asked: list[tuple[int, tuple[tuple[object, ...], Question]]] = []
    ratios: list[tuple[int, int, int]] = []
    for column, (feature_name, feature) in enumerate(features.items()):
        culprit = f"view {name!r}, feature {feature_name!r}"
        if feature.kind is Kind.RATIO:
            parts = (feature.numerator, feature.denominator)
            _check_ratio(culprit, parts, features)
            ratios.append((column, names.index(parts[0]), names.index(parts[1])))
            continue
        source = _source(culprit, feature, event_types)
        ring = rings[tile_of(feature)] if feature.kind in TILED else None
        step = resolution.get(feature.field or "", RESOLUTION_DEFAULT)
        key = _place(aggregates, feature, source, ring, step)
        panes = feature.over_us // ring.tile_us if ring else 0
        question = Question(feature.kind, feature.over_us, panes, feature.include_self)
        asked.append((column, (key, question)))
    stored = tuple(aggregates.values())
    row_dtype = _row_dtype(name, stored)
    questions = [(column, aggregates[key], question) for column, (key, question) in asked]
    return ViewPlan(
        name=name,
        features=names,
        row_dtype=row_dtype,
        row_bytes=row_dtype.itemsize,
        horizon_us=max((feature.over_us for feature in features.values()), default=0) + lateness_us,
        schema=_schema(stored, row_dtype, event_types),
        stored=stored,
        sums=SumsTable(
            row_dtype,
            [item for item in stored if isinstance(item, Sums)],
            [(column, by, question) for column, by, question in questions if isinstance(by, Sums)],
        ),
        aggregates=tuple(item for item in stored if not isinstance(item, Sums)),
        asked=tuple(
            (column, (by, question))
            for column, by, question in questions
            if not isinstance(by, Sums)
        ),
        ratios=tuple(ratios),
    )


def tile_of(feature: Feature) -> int:
    """Return the width of a feature's tiles in µs: as declared, or the window's 60th part.

    Where a 60th is no whole number of microseconds, the window has the next larger number of tiles.
    """
    if feature.tile_us is not None:
        return feature.tile_us
    parts = TILES_PER_WINDOW
    while feature.over_us % parts:
        parts += 1
    return feature.over_us // parts


def _rings(features: Iterable[Feature], lateness_us: int) -> dict[int, Ring]:
    """Return one ring for each tile width, long enough for its longest window."""
    windows: dict[int, int] = {}
    for feature in features:
        if feature.kind in TILED:
            tile_us = tile_of(feature)
            windows[tile_us] = max(windows.get(tile_us, 0), feature.over_us // tile_us)
    return {
        tile_us: Ring(tile_us, panes - (-lateness_us // tile_us) + 1)
        for tile_us, panes in windows.items()
    }


def _place(
    aggregates: dict[tuple[object, ...], Sums | Aggregate],
    feature: Feature,
    source: Source,
    ring: Ring | None,
    step: float,
) -> tuple[object, ...]:
    """Return the key of the aggregate that answers a feature, adding or widening it if needed."""
    kind = feature.kind
    key: tuple[object, ...]
    if kind in (Kind.LAST, Kind.SINCE_LAST):
        key = (Latest, source)
    elif kind is Kind.EWM_MEAN:
        key = (Decayed, source, feature.half_life_us, feature.over_us)
    elif kind in (Kind.MIN, Kind.MAX):
        key = (Extremes, source, ring, kind)
    elif kind is Kind.DISTINCT:
        key = (Registers, source, ring, feature.precision)
    else:
        key = (Sums, source, ring)
    known = aggregates.get(key)
    if known is None:
        aggregates[key] = _aggregate(f"a{len(aggregates)}", feature, source, ring, step)
    elif isinstance(known, Sums):
        more = [part for part in PARTS_OF[kind] if part not in known.parts]
        aggregates[key] = replace(known, parts=(*known.parts, *more))
    return key


def _aggregate(
    name: str, feature: Feature, source: Source, ring: Ring | None, step: float
) -> Sums | Aggregate:
    kind = feature.kind
    if kind in (Kind.LAST, Kind.SINCE_LAST):
        return Latest(name, source)
    if kind is Kind.EWM_MEAN:
        return Decayed(name, source, feature.half_life_us, feature.over_us)
    assert ring is not None
    if kind in (Kind.MIN, Kind.MAX):
        return Extremes(name, ring, source, largest=kind is Kind.MAX)
    if kind is Kind.DISTINCT:
        return Registers(name, ring, source, feature.precision)
    return Sums(name, ring, source, step, PARTS_OF[kind])


def _source(culprit: str, feature: Feature, event_types: tuple[type[Event], ...]) -> Source:
    """Return which events a feature counts, by index; None stands for all types."""
    known = [event_type.__name__ for event_type in event_types]
    for event_type in feature.of or ():
        if event_type not in event_types:
            raise DeclarationError(
                culprit,
                f"{event_type.__name__} is no event type of the stream",
                name=event_type.__name__,
                choices=known,
            )
    if feature.field is not None:
        _check_field(culprit, feature, event_types)
    chosen = tuple(
        index
        for index, event_type in enumerate(event_types)
        if (feature.of is None or event_type in feature.of)
        and (feature.field is None or feature.field in fields_of(event_type))
    )
    return Source(None if len(chosen) == len(event_types) else chosen, feature.field)


def _check_field(culprit: str, feature: Feature, event_types: tuple[type[Event], ...]) -> None:
    field = feature.field
    assert field is not None
    infos = {event_type: fields_of(event_type) for event_type in event_types}
    for event_type in feature.of or ():
        if field not in infos[event_type]:
            raise DeclarationError(
                culprit,
                f"{event_type.__name__} has no field {field!r}",
                name=field,
                choices=infos[event_type],
            )
    kinds = {
        event_type.__name__: fields[field].kind
        for event_type, fields in infos.items()
        if field in fields
    }
    if not kinds:
        raise DeclarationError(
            culprit,
            f"no event type has a field {field!r}",
            name=field,
            choices={name for fields in infos.values() for name in fields},
        )
    if feature.kind is Kind.DISTINCT:
        return
    # A column has one type: a field that is a number here and text there cannot be one.
    for type_name, kind in kinds.items():
        if kind not in ("number", "flag"):
            raise DeclarationError(
                culprit, f"{feature.kind.value} needs a number, but {type_name}.{field} is {kind}"
            )


def _check_ratio(culprit: str, parts: tuple[str, str], features: Mapping[str, Feature]) -> None:
    usable = [name for name, feature in features.items() if feature.kind is not Kind.RATIO]
    for part in parts:
        if part not in features:
            raise DeclarationError(
                culprit, f"the view has no feature {part!r}", name=part, choices=usable
            )
        if part not in usable:
            raise DeclarationError(culprit, f"{part!r} is a ratio itself; name what it is made of")


def _row_dtype(view: str, aggregates: tuple[Stored, ...]) -> np.dtype[np.void]:
    """Lay columns out by falling size of their numbers, so that each is aligned."""
    columns = [Column(UPDATED, "<i8")]
    columns += [column for aggregate in aggregates for column in aggregate.columns()]
    columns.sort(key=lambda column: -np.dtype(column.dtype).itemsize)
    row_bytes = sum(column.nbytes for column in columns)
    if row_bytes > ROW_BYTES_MAX:
        largest = max(columns, key=lambda column: column.nbytes)
        raise DeclarationError(
            f"view {view!r}",
            f"a row would take {row_bytes} bytes, over {ROW_BYTES_MAX}: one column has "
            f"{largest.length} tiles of {largest.nbytes // largest.length} bytes; declare "
            "a coarser tile for it, a shorter lateness or a lower precision",
        )
    offsets = np.cumsum([0, *(column.nbytes for column in columns)]).tolist()
    return np.dtype(
        {
            "names": [column.name for column in columns],
            "formats": [_format(column) for column in columns],
            "offsets": offsets[:-1],
            "itemsize": -(-row_bytes // 8) * 8,
        }
    )


def _format(column: Column) -> str | tuple[str, tuple[int, ...]]:
    if column.length == column.width == 1:
        return column.dtype
    if column.width == 1:
        return (column.dtype, (column.length,))
    return (column.dtype, (column.length, column.width))


def _schema(
    aggregates: tuple[Stored, ...],
    row_dtype: np.dtype[np.void],
    event_types: tuple[type[Event], ...],
) -> str:
    """Return a fingerprint of all that gives a stored row its meaning."""
    lines = [f"format {FORMAT}", str(row_dtype.descr)]
    for aggregate in aggregates:
        types = aggregate.source.types
        chosen = event_types if types is None else [event_types[index] for index in types]
        lines.append(aggregate.meaning(tuple(sorted(tag_of(event_type) for event_type in chosen))))
    return blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
