"""Reading the rows that owned partitions lack, among a caller's own commands."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_infer.core.errors import FencedError
from stream_infer.core.shard import Shard
from stream_infer.store.commands import Command
from stream_infer.store.state import Ownership, StateStore
from stream_infer.stream.holdings import Holdings
from stream_infer.stream.owned import Owned
from stream_infer.stream.processing import TP


@dataclass(frozen=True, slots=True)
class Asked:
    """The rows that one partition was asked for, and what it was taken for at that moment."""

    tp: TP
    owned: Owned
    keys: Mapping[str, list[str]]
    before: Ownership
    asks_memory: bool


class RowReader:
    """Asks the store for rows, and makes them resident if they are what they must be."""

    def __init__(self, holdings: Holdings, store: StateStore) -> None:
        self._holdings = holdings
        self._store = store

    def ask(
        self, commands: list[Command], tp: TP, owned: Owned, lacking: Mapping[str, list[str]]
    ) -> list[Asked]:
        """Add the commands for the keys that a partition lacks, by shard, if any."""
        keys = {name: found for name, found in lacking.items() if found}
        if not keys:
            return []
        for name, found in keys.items():
            commands.append(("MGET", *self._store.row_keys(tp.partition, name, found)))
        commands.append(self._store.header_command(tp.partition))
        asks_memory = self._holdings.evictions.asks(owned.watch)
        if asks_memory:
            commands.append(self._store.memory_command(tp.partition))
        return [Asked(tp, owned, keys, owned.ownership, asks_memory)]

    def insert(self, asked: Sequence[Asked], replies: Iterator[Any]) -> None:
        """Take the replies to what was asked, in that order, and insert the rows.

        Raises PartitionsFenced, once the others' rows are inserted, for partitions that others own
        by now, or whose rows are not those that we stored.
        """
        fenced: dict[TP, FencedError] = {}
        for one in asked:
            rows: list[tuple[Shard, list[str], list[bytes | None]]] = [
                (one.owned.state.shards[name], keys, next(replies))
                for name, keys in one.keys.items()
            ]
            header = next(replies)
            told = next(replies) if one.asks_memory else None
            try:
                self._store.check_header(one.before, header)
                absent = any(None in found for _, _, found in rows)
                self._holdings.evictions.check(one.owned.watch, told, absent=absent)
            except FencedError as error:
                if self._holdings.get(one.tp) is one.owned:
                    fenced[one.tp] = error
                continue
            for shard, keys, found in rows:
                shard.insert(keys, found)
        self._holdings.forget(fenced)
