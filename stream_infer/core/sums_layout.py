"""Where the counts and sums of a view are: all that its declaration says of them, as arrays."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_infer.core.aggregates import Question
from stream_infer.core.aggregates_sums import COUNT, SUM, Sums, per_unit
from stream_infer.core.arrays import Floats, Ints
from stream_infer.core.arrivals import Source
from stream_infer.core.features import Kind
from stream_infer.core.panes import Ring

DTYPES: dict[str, np.dtype[Any]] = {COUNT: np.dtype("<u4"), SUM: np.dtype("<i8")}
NEEDED = {
    Kind.COUNT: (COUNT,),
    Kind.SUM: (SUM,),
    Kind.MEAN: (COUNT, SUM),
    Kind.STD: (COUNT, SUM),
}


class Value(NamedTuple):
    """What an event adds to a cell: one where it matches, or its field as a number of steps."""

    source: Source
    step: float | None


class Part(NamedTuple):
    """One stored column: its name and type, and its ring and value by number."""

    name: str
    dtype: np.dtype[Any]
    ring: int
    value: int


class Asked(NamedTuple):
    """A count or sum that features need: of a part, in a window, by number."""

    part: int
    window: int
    include_self: bool


class Cells(NamedTuple):
    """Pairs of cells of one type: the cell of member i, and, `half` further on, its other one.

    `lines` int64[c] say in which line of slots each cell's slot is, `offsets` int64[c, 1] where
    its column begins in a row of `length` numbers.
    """

    dtype: np.dtype[Any]
    members: slice
    half: int
    lines: Ints
    offsets: Ints
    length: int

    def places(self, slots: Ints, rows: Ints) -> Ints:
        """Return int64[c, n], where the cells of `rows` int64[n] are; `slots` int64[lines, n]."""
        index = slots.take(self.lines, axis=0)
        index += self.offsets
        index += rows * self.length
        return index


class Derived(NamedTuple):
    """A feature that is answered from a count and a sum, given by number."""

    column: int
    sums: Sums
    question: Question
    size: int
    total: int


class SumsLayout:
    """The counts and sums of a view, numbered: `sums` keep them, `asked` are A that are asked for.

    A window is a ring, by number, and its length in panes. `lines` of slots are those of the newest
    pane seen, by ring, and those of the last one not seen, by window. `plain` are columns of
    answers, and the number of what is asked for each.
    """

    def __init__(
        self,
        row_dtype: np.dtype[np.void],
        sums: Sequence[Sums],
        asked: Sequence[tuple[int, Sums, Question]],
    ) -> None:
        self.rings: list[Ring] = list(dict.fromkeys(member.ring for member in sums))
        self.values: list[Value] = []
        self.parts: list[Part] = []
        self.windows: list[tuple[int, int]] = []
        # Counts come first, so that what has one type is in one piece.
        for kind in (COUNT, SUM):
            for member in sums:
                if kind in member.parts:
                    self._add_part(member, kind)
        self._name(asked)
        self._find_cells(row_dtype)
        self._find_units()

    def placed(self, cells: Cells) -> list[tuple[Part, int]]:
        """Return the parts among the members of `writes`, each with where its column begins."""
        offsets = cells.offsets[: cells.half, 0].tolist()
        return list(zip(self.parts[cells.members], offsets, strict=True))

    def _add_part(self, member: Sums, kind: str) -> None:
        value = Value(member.source, None if kind == COUNT else member.step)
        if value not in self.values:
            self.values.append(value)
        ring, number = self.rings.index(member.ring), self.values.index(value)
        self.parts.append(Part(f"{member.name}_{kind}", DTYPES[kind], ring, number))

    def _name(self, asked: Sequence[tuple[int, Sums, Question]]) -> None:
        number: dict[tuple[str, int], int] = {}
        self.asked: list[Asked] = []
        for kind in (COUNT, SUM):
            for column, member, question in asked:
                if kind in NEEDED[question.kind]:
                    wanted = self._wanted(member, question, kind)
                    if wanted not in self.asked:
                        self.asked.append(wanted)
                    number[kind, column] = self.asked.index(wanted)
        plain = [
            (column, number[NEEDED[question.kind][0], column])
            for column, _, question in asked
            if question.kind in (Kind.COUNT, Kind.SUM)
        ]
        self.plain = numbers(column for column, _ in plain), numbers(found for _, found in plain)
        self.derived = tuple(
            Derived(column, member, question, number[COUNT, column], number[SUM, column])
            for column, member, question in asked
            if question.kind in (Kind.MEAN, Kind.STD)
        )

    def _wanted(self, member: Sums, question: Question, kind: str) -> Asked:
        window = self.rings.index(member.ring), question.panes
        if window not in self.windows:
            self.windows.append(window)
        names = [part.name for part in self.parts]
        part = names.index(f"{member.name}_{kind}")
        return Asked(part, self.windows.index(window), question.include_self)

    def _find_cells(self, row_dtype: np.dtype[np.void]) -> None:
        rings, parts = len(self.rings), self.parts
        lines = [(ring, 0) for ring in range(rings)] + self.windows
        self.line_ring = numbers(ring for ring, _ in lines)
        self.slots = numbers(self.rings[ring].slots for ring, _ in lines)[:, None]
        self.panes = numbers(panes for _, panes in lines)[:, None]
        seen = [(parts[asked.part], rings + asked.window) for asked in self.asked]
        self.reads = pairs(row_dtype, [(part, part.ring) for part, _ in seen], seen)
        old = [(part, part.ring) for part in parts]
        self.writes = pairs(row_dtype, old, [(part, rings + part.ring) for part in parts])
        self.ring_tile_us = numbers(ring.tile_us for ring in self.rings)[:, None]
        self.ring_slots = np.concatenate([self.slots[:rings], self.slots[:rings]])
        self.narrowest = [
            (self.rings[ring].tile_us, min(panes for at, panes in self.windows if at == ring))
            for ring in sorted({ring for ring, _ in self.windows})
        ]

    def _find_units(self) -> None:
        """Find what counts and sums are divided by, and then multiplied by: float64[A, 1]."""
        self.part_value = numbers(part.value for part in self.parts)
        self.asked_value = numbers(self.parts[asked.part].value for asked in self.asked)
        own = [number for number, asked in enumerate(self.asked) if asked.include_self]
        self.own_asked, self.own_value = numbers(own), self.asked_value[own]
        units = [per_unit(self.values[number].step) for number in self.asked_value]
        self.divisor: Floats = np.array([[divisor] for divisor, _ in units], float).reshape(-1, 1)
        factors = np.array([[factor] for _, factor in units], float).reshape(-1, 1)
        self.factor: Floats | None = factors if np.count_nonzero(factors != 1.0) else None


def numbers(values: Iterable[int]) -> Ints:
    """Return integers as int64[n]."""
    return np.array(list(values), np.int64)


def pairs(
    row_dtype: np.dtype[np.void],
    some: Sequence[tuple[Part, int]],
    others: Sequence[tuple[Part, int]],
) -> list[Cells]:
    """Return the cells of each type, given the part and the line of slots of each."""
    assert row_dtype.fields is not None
    found: list[Cells] = []
    begin = 0
    for dtype in DTYPES.values():
        cells = [cell for cell in (*some, *others) if cell[0].dtype == dtype]
        half = len(cells) // 2
        if not half:
            continue
        offsets = numbers(row_dtype.fields[part.name][1] // dtype.itemsize for part, _ in cells)
        length = row_dtype.itemsize // dtype.itemsize
        lines = numbers(line for _, line in cells)
        members = slice(begin, begin + half)
        found.append(Cells(dtype, members, half, lines, offsets[:, None], length))
        begin += half
    return found
