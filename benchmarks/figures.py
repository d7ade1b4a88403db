"""What a benchmark says: figures with units, and the tables made of them."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import msgspec

Case = Mapping[str, str | int | float]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured quantity in one case: the median of its runs, and each of them.

    `note` is what a reader must know beside it.
    """

    name: str
    value: float
    unit: str
    case: dict[str, str | int | float] = {}
    runs: tuple[float, ...] = ()
    note: str = ""


def figure(
    name: str, runs: float | Sequence[float], unit: str, case: Case, note: str = ""
) -> Figure:
    """Return the median of `runs` as a figure."""
    values = (runs,) if isinstance(runs, int | float) else tuple(runs)
    rounded = tuple(_rounded(value) for value in values)
    return Figure(
        name=name,
        value=_rounded(median(values)),
        unit=unit,
        case=dict(case),
        runs=rounded,
        note=note,
    )


def over_runs(runs: Sequence[Mapping[str, tuple[float, str]]], case: Case) -> list[Figure]:
    """Return the figures of repeated runs, each of which gave value and unit by name."""
    return [
        figure(name, [run[name][0] for run in runs], unit, case)
        for name, (_, unit) in runs[0].items()
    ]


def table(figures: Iterable[Figure]) -> list[list[str]]:
    """Lay figures out: a row for each case, a column for each quantity; the header first."""
    figures = list(figures)
    keys = list(dict.fromkeys(key for item in figures for key in item.case))
    names = list(dict.fromkeys((item.name, item.unit) for item in figures))
    cases: dict[tuple[object, ...], dict[tuple[str, str], float]] = {}
    for item in figures:
        case = tuple(item.case.get(key, "") for key in keys)
        cases.setdefault(case, {})[item.name, item.unit] = item.value
    head = [*keys, *(f"{name} ({unit})" if unit else name for name, unit in names)]
    rows = [
        [*map(shown, case), *(shown(cells[name]) if name in cells else "–" for name in names)]
        for case, cells in cases.items()
    ]
    return [head, *rows]


def text_of(rows: Sequence[Sequence[str]]) -> str:
    """Align a table's columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def notes(figures: Iterable[Figure]) -> list[str]:
    """The notes, each with the case that it belongs to."""
    return [
        f"{', '.join(str(value) for value in item.case.values() if value != '')}: {item.note}"
        for item in figures
        if item.note
    ]


def shown(value: object) -> str:
    """A number with as many digits as are worth reading."""
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
