"""Number of different values in a window, estimated: HyperLogLog registers of each tile.

Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog: the analysis of a near-optimal cardinality
estimation algorithm" (2007), with its linear counting in the small range.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from math import log

import numpy as np
import numpy.typing as npt

from stream_infer.core.aggregates import Column, Question
from stream_infer.core.arrays import Floats, Ints, Octets
from stream_infer.core.arrivals import Arrivals, Source
from stream_infer.core.durations import text_of
from stream_infer.core.panes import Panes, Ring

RANK_MAX = 31
HASHES_CACHED = 1 << 16
ALPHA = {16: 0.673, 32: 0.697, 64: 0.709}


@dataclass(frozen=True, slots=True)
class Registers:
    """2**precision registers a tile, each the highest rank among the values that fell on it."""

    name: str
    ring: Ring
    source: Source
    precision: int

    def columns(self) -> list[Column]:
        """Return the one column kept."""
        return [Column(f"{self.name}_ranks", "|u1", self.ring.slots, 1 << self.precision)]

    def meaning(self, tags: tuple[str, ...]) -> str:
        """Return text that identifies the stored numbers."""
        tile = text_of(self.ring.tile_us)
        return f"distinct {','.join(tags)} {self.source.field} {tile} {self.precision}"

    def answer(self, arrivals: Arrivals, question: Question) -> Floats:
        """Return the estimated number of different values that each event sees."""
        panes = arrivals.panes(self.ring)
        register, rank = self._hashed(arrivals)
        ranks = self._stored(arrivals, panes, question.panes)[panes.tile_of]
        if not arrivals.lone:
            self._add_batch(panes, ranks, panes.sort(register), panes.sort(rank), question.panes)
        ranks = panes.unsort(ranks)
        if question.include_self:
            here = arrivals.positions, register
            ranks[here] = np.maximum(ranks[here], rank)
        return estimate(ranks)

    def fold(self, arrivals: Arrivals) -> None:
        """Raise the registers of the events' panes."""
        panes, column = arrivals.panes(self.ring), f"{self.name}_ranks"
        group, slot = panes.fresh
        arrivals.shard.rows[column][arrivals.group_row[group], slot] = 0
        register, rank = self._hashed(arrivals)
        kept = (panes.pane > panes.group_new_head[arrivals.group] - self.ring.slots) & (rank > 0)
        place = (self.ring.slot(panes.pane) << self.precision) + register
        arrivals.raise_(column, arrivals.row[kept], rank[kept], place[kept])

    def _hashed(self, arrivals: Arrivals) -> tuple[Ints, Octets]:
        """Return the register and rank of each event's value; rank 0 where it has none."""
        return arrivals.once((self.name, "hashed"), lambda: self._hash(arrivals))

    def _hash(self, arrivals: Arrivals) -> tuple[Ints, Octets]:
        assert self.source.field is not None
        labels = arrivals.batch.labels(self.source.field)
        typed = Source(self.source.types, None)
        texts = [labels[i] for i in arrivals.order.tolist()]
        hashes = np.fromiter(
            (0 if text is None else stable_hash(text) for text in texts), np.uint64, len(texts)
        )
        known = np.fromiter((text is not None for text in texts), bool, len(texts))
        known &= arrivals.matched(typed)
        rest = hashes >> np.uint64(self.precision)
        lowest_bit = rest & (~rest + np.uint64(1))
        rank = np.where(rest == 0, RANK_MAX, np.frexp(lowest_bit.astype(np.float64))[1])
        rank = np.where(known, np.minimum(rank, RANK_MAX), 0).astype(np.uint8)
        return (hashes & np.uint64((1 << self.precision) - 1)).astype(np.int64), rank

    def _stored(self, arrivals: Arrivals, panes: Panes, k: int) -> Octets:
        """Return the highest stored ranks that the events of each tile see: uint8[tiles, m]."""
        seen, newest, at = panes.stored(k)
        row = panes.sort(arrivals.row)[at]
        stored = arrivals.shard.rows[f"{self.name}_ranks"]
        ranks = np.zeros((len(seen), 1 << self.precision), np.uint8)
        for tile in np.flatnonzero(seen).tolist():
            own, end = stored[row[tile]], int(newest[tile]) + 1
            begin = end - int(seen[tile])
            np.maximum.reduce(own[max(begin, 0) : end], axis=0, out=ranks[tile])
            if begin < 0:  # the window goes on at the end of the ring
                np.maximum(ranks[tile], own[begin:].max(axis=0), out=ranks[tile])
        return ranks

    def _add_batch(self, panes: Panes, ranks: Octets, register: Ints, rank: Octets, k: int) -> None:
        """Raise `ranks` by the batch's events that each event sees; all in pane order."""
        pairs = panes.pairs(k)
        assert pairs.first is not None
        some = np.flatnonzero(pairs.high > pairs.low)
        if not len(some):
            return
        running = np.zeros_like(ranks)
        running[np.arange(len(rank)), register] = rank
        _accumulate(running, panes.tile_of)
        event = np.searchsorted(pairs.first, some, side="right") - 1
        turn = np.arange(len(some)) - np.searchsorted(event, event)
        for number in range(int(turn.max()) + 1):
            now = turn == number
            seen = running[pairs.high[some[now]] - 1]
            ranks[event[now]] = np.maximum(ranks[event[now]], seen)


def _accumulate(ranks: Octets, part: Ints) -> None:
    """Replace each row of `ranks` by the highest so far within its part (ascending numbers)."""
    longest = int(np.bincount(part).max())
    step = 1
    while step < longest:
        same = np.flatnonzero(part[step:] == part[:-step])
        ranks[same + step] = np.maximum(ranks[same + step], ranks[same])
        step *= 2


@lru_cache(maxsize=HASHES_CACHED)
def stable_hash(text: str) -> int:
    """Return 64 bits that depend on the text only, in every process and version.

    >>> stable_hash("JFK")
    195223386312801468
    """
    octets = text.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "little")


@cache
def _small_range(registers: int) -> Floats:
    """Return the linear count by number of untouched registers; +inf for none."""
    counts = [np.inf] + [registers * log(registers / empty) for empty in range(1, registers + 1)]
    return np.array(counts)


def estimate(ranks: npt.NDArray[np.uint8]) -> Floats:
    """Return the estimated cardinality of each row of registers, whole numbers; 0 for none."""
    registers = ranks.shape[1]
    # Ranks end at 31, so that the harmonic sum is an exact integer.
    harmonic = (np.int64(1) << (RANK_MAX - ranks.astype(np.int64))).sum(axis=1)
    alpha = ALPHA.get(registers, 0.7213 / (1 + 1.079 / registers))
    raw = alpha * registers * registers / (harmonic / 2.0**RANK_MAX)
    linear = _small_range(registers)[np.count_nonzero(ranks == 0, axis=1)]
    result: Floats = np.rint(np.where((raw <= 2.5 * registers) & np.isfinite(linear), linear, raw))
    return result
