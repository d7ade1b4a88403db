"""The partitions a worker owns: their rows in memory, and when these are stored."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stream_infer.core.errors import FencedError, StateLostError
from stream_infer.core.state import PartitionState, Position, new_state, snapshots
from stream_infer.core.topology import Topology
from stream_infer.failpoints import failpoint
from stream_infer.monitoring.metrics import Histogram
from stream_infer.settings import Settings
from stream_infer.store.state import StateStore
from stream_infer.stream.away import Away, Published, highest
from stream_infer.stream.evictions import Evictions
from stream_infer.stream.owned import Owned
from stream_infer.stream.processing import TP, ConsumerRecord, PartitionsFenced
from stream_infer.stream.write_pace import Metered, WritePace


class MakeState(Protocol):
    """Makes a partition's state at a position (`core.state.new_state`, say)."""

    def __call__(
        self,
        topology: Topology,
        partition: int,
        /,
        *,
        position: Position | None,
        emit_from: Position | None,
        stream_times_us: Position | None,
        catch_up_us: int,
    ) -> PartitionState: ...


class Holdings:
    """Owned partitions; snapshots are taken between micro-batches and written once acknowledged.

    The partitions of one number of all the topology's topics are owned together, under the name of
    the first topic's (see `unit`). `topics` default to those of the topology's streams.
    """

    def __init__(
        self,
        topology: Topology,
        store: StateStore,
        settings: Settings,
        monotonic_s: Callable[[], float],
        *,
        make_state: MakeState = new_state,
        topics: Sequence[str] = (),
        store_s: Histogram | None = None,
        processor_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._topology = topology
        self._store = store
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._processor_s = processor_s
        self._pace = WritePace(settings, monotonic_s)
        self._make_state = make_state
        self._store_s = store_s or Histogram()
        self._owned: dict[TP, Owned] = {}
        self._away: dict[TP, Away] = {}
        self._published: dict[TP, Published] = {}
        self.evictions = Evictions(store, monotonic_s)
        self._topics = list(topics) or [stream.name for stream in topology.streams]

    def __contains__(self, tp: object) -> bool:
        return tp in self._owned

    def __getitem__(self, tp: TP) -> Owned:
        return self._owned[tp]

    def get(self, tp: TP) -> Owned | None:
        """Return a partition, None where it is not ours (any more)."""
        return self._owned.get(tp)

    def held(self, tp: TP) -> Owned | Away | None:
        """Return a partition of ours, with its rows or without."""
        return self._owned.get(tp) or self._away.get(tp)

    @property
    def away(self) -> list[TP]:
        """Partitions of ours whose rows cannot be read, of all topics."""
        return [member for tp in self._away for member in self.members(tp.partition)]

    def leave(self) -> None:
        """Give up all rows in memory: Redis is away, and the log goes on.

        They are folded again from what is stored. What is on its way to Kafka now will have arrived
        when the partitions are acquired again.
        """
        for tp, owned in self._owned.items():
            state = owned.state
            self._published[tp] = Published(
                highest(state.emit_from, owned.acknowledged),
                highest(state.pairs_from, state.position),
            )
            self._away[tp] = Away(self._rowless(tp, state.position, state.stream_times_us))
        self._owned.clear()

    def go_without(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> dict[TP, int]:
        """Take partitions that cannot be acquired, Redis being away; return where to go on."""
        positions: dict[TP, int] = {}
        for number in dict.fromkeys(tp.partition for tp in partitions):
            members = self.members(number)
            start = tuple(committed.get(tp) or 0 for tp in members)
            known = self._published.get(members[0])
            if known is not None:
                start = highest(start, known.emit_from)
            pairs_from = start if known is None else known.pairs_when(start)
            self._published[members[0]] = Published(start, pairs_from)
            self._owned.pop(members[0], None)
            self._away[members[0]] = Away(self._rowless(members[0], start, None))
            # Without any offset, the log is read from where `offset_reset` says.
            positions |= {tp: o for tp, o in zip(members, start, strict=True) if o}
        return positions

    def _rowless(self, tp: TP, position: Position, times_us: Position | None) -> PartitionState:
        return new_state(
            self._topology,
            tp.partition,
            position=position,
            emit_from=self._published[tp].emit_from,
            stream_times_us=times_us,
        )

    def unit(self, tp: TP) -> TP:
        """Return under which name a partition is owned."""
        return TP(self._topics[0], tp.partition)

    def members(self, partition: int) -> list[TP]:
        """Return the partitions of one number of all topics, in the order of the streams."""
        return [TP(topic, partition) for topic in self._topics]

    async def acquire(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> dict[TP, int]:
        """Take partitions; return from which offset each must be read.

        Without stored state that is the beginning: all that the log still has is folded, but
        nothing below the committed offset is published again.
        """
        positions: dict[TP, int] = {}
        for number in dict.fromkeys(tp.partition for tp in partitions):
            members = self.members(number)
            ownership = await self.evictions.trusted(await self._store.acquire(number))
            position = ownership.position or (0,) * len(members)
            emit_from = tuple(
                max(offset, committed.get(tp) or 0)
                for tp, offset in zip(members, position, strict=True)
            )
            known = self._published.pop(members[0], None)
            pairs_from = emit_from
            if known is not None:
                emit_from = highest(emit_from, known.emit_from)
                pairs_from = known.pairs_when(emit_from)
            state = self._make_state(
                self._topology,
                number,
                position=position,
                emit_from=emit_from,
                stream_times_us=ownership.stream_times_us,
                catch_up_us=int(self._settings.catch_up_max_s * 1e6),
            )
            state.pairs_from = pairs_from
            watch = self.evictions.watch(ownership)
            self._owned[members[0]] = Owned(state, ownership, pairs_from, watch)
            self._away.pop(members[0], None)
            positions.update(zip(members, position, strict=True))
            failpoint("acquiring")
        failpoint("acquired")
        return positions

    def acknowledge(self, positions: Mapping[TP, int]) -> None:
        """Note up to where results are acknowledged."""
        for number in {tp.partition for tp in positions}:
            members = self.members(number)
            known = self._published.get(members[0])
            if known is not None:
                heard = tuple(positions.get(tp, 0) for tp in members)
                emit_from = highest(known.emit_from, heard)
                self._published[members[0]] = Published(emit_from, known.pairs_from)
            owned = self._owned.get(members[0])
            if owned is not None:
                owned.acknowledged = tuple(
                    max(known, positions.get(tp, known))
                    for tp, known in zip(members, owned.acknowledged, strict=True)
                )

    def take_snapshots(self, folded: Sequence[Sequence[ConsumerRecord]] = ()) -> None:
        """Begin to store changed partitions, if the last write is long enough ago (`WritePace`).

        `folded` are the records of a micro-batch that has just been folded, in parts.
        """
        if folded:
            self._pace.folded(folded)
        changed = [owned for owned in self._owned.values() if owned.storable]
        if changed and self._pace.due:
            self._pace.begin()
            self._snapshot(changed)

    async def write_pending(self) -> None:
        """Write the snapshots whose events are all acknowledged.

        Raises PartitionsFenced, after all others are written, for those that others own by now.
        """
        held = [(tp, owned) for tp, owned in self._owned.items() if owned.writable]
        errors = await self._write([owned for _, owned in held])
        fenced: dict[TP, FencedError] = {}
        for (tp, _), error in zip(held, errors, strict=True):
            if isinstance(error, FencedError):
                fenced[tp] = error
            elif error is not None:
                raise error
        self.forget(fenced)

    def forget(self, fenced: Mapping[TP, FencedError]) -> None:
        """Give up partitions that a read or a write has shown not to be ours as we know them.

        Raises PartitionsFenced where there are any.
        """
        if not fenced:
            return
        for tp, error in fenced.items():
            owned = self._owned.pop(tp, None)
            if owned is not None and isinstance(error, StateLostError):
                self._published[tp] = Published(
                    highest(owned.state.emit_from, owned.acknowledged),
                    highest(owned.state.pairs_from, owned.acknowledged),
                )
        lost = all(isinstance(error, StateLostError) for error in fenced.values())
        text = "; ".join(str(fenced[tp]) for tp in sorted(fenced))
        raise PartitionsFenced(frozenset(fenced), text, reassigned=not lost)

    async def give_back(self, partitions: Sequence[TP]) -> None:
        """Forget partitions, and write what is left of them.

        Raises the first error when all are done: their next owner folds what is not stored.
        """
        for tp in partitions:
            self._away.pop(tp, None)
            self._published.pop(tp, None)
        given = [owned for tp in partitions if (owned := self._owned.pop(tp, None)) is not None]
        errors: list[BaseException] = []
        for owned in given:
            error = await self._write_rest(owned)
            # Where another worker owns it by now, that one folds on from what is stored.
            if error is not None and not isinstance(error, FencedError):
                errors.append(error)
            failpoint("revoking")
        if errors:
            raise errors[0]

    def _snapshot(self, changed: Sequence[Owned]) -> None:
        began_s = self._processor_s()
        taken = snapshots([owned.state for owned in changed])
        for owned, snapshot in zip(changed, taken, strict=True):
            owned.pending, owned.changed = snapshot, False
        self._pace.spend(self._processor_s() - began_s)

    async def _write_rest(self, owned: Owned) -> BaseException | None:
        """Write a partition's last rows, as far as they may be; return what went wrong."""
        if owned.writable and (error := (await self._write([owned]))[0]) is not None:
            return error
        if owned.storable and owned.is_acknowledged(owned.state.position):
            self._snapshot([owned])
            return (await self._write([owned]))[0]
        return None

    async def _write(self, due: Sequence[Owned]) -> list[BaseException | None]:
        """Write snapshots together; return what went wrong with each, None where nothing did."""
        if not due:
            return []
        for _ in due:
            failpoint("state_unwritten")
        began_s = self._monotonic_s()
        writes = [(owned.ownership, owned.snapshot) for owned in due]
        writing = Metered(self._store.write_all(writes), self._processor_s)
        try:
            written = await writing
        finally:
            self._pace.spend(writing.spent_s)
        write_s = self._monotonic_s() - began_s
        errors: list[BaseException | None] = []
        for owned, stored in zip(due, written, strict=True):
            errors.append(stored if isinstance(stored, BaseException) else None)
            if isinstance(stored, BaseException):
                continue
            owned.ownership, owned.pending = stored, None
            self._store_s.observe(write_s)
            failpoint("state_written")
            # Under load the next snapshot may be taken before the next batch asks for room.
            owned.evict(self._settings.state_rows_max)
        return errors
