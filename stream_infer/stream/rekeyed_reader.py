"""Reading rows of rekeyed views for the events that are scored, among a caller's own commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stream_infer.core.columns import Batch
from stream_infer.core.rekeyed import keyed_views
from stream_infer.core.stored_rows import StoredRows
from stream_infer.core.topology import Topology
from stream_infer.store.state import partition_prefix
from stream_infer.stream.partitioning import Partitioner


@dataclass(frozen=True, slots=True)
class RowRequest:
    """Commands to send; `rows` are, for each command, the views and entities it asks for."""

    commands: list[tuple[str, ...]]
    rows: list[list[tuple[str, str]]]


class RekeyedReader:
    """Asks for rows of a topology's rekeyed views; `partitions` is how many their topic has."""

    def __init__(self, topology: Topology, partitions: int) -> None:
        self.partitions = partitions
        self._topology = topology
        self._keyed = keyed_views(topology)
        self._partitioner = Partitioner()

    def request(self, batches: Sequence[Batch]) -> RowRequest:
        """Return the commands that read the rows of all these events, one for each partition."""
        choices, choose = range(self.partitions), self._partitioner.partition
        wanted: dict[int, dict[tuple[str, str], None]] = {}
        for views in self._keyed:
            names = [view.name for view in views.views]
            entities = dict.fromkeys(key for batch in batches for key in batch.keys(views.by))
            for entity in entities:
                if entity is not None:
                    partition = choose(views.record_key(entity).encode(), choices)
                    of_partition = wanted.setdefault(partition, {})
                    of_partition.update(dict.fromkeys((name, entity) for name in names))
        commands = []
        for partition, rows in wanted.items():
            prefix = partition_prefix(self._topology.rekeyed_events, partition)
            commands.append(("MGET", *(f"{prefix}{view}:{entity}" for view, entity in rows)))
        return RowRequest(commands, [list(rows) for rows in wanted.values()])

    def absorb(self, request: RowRequest, replies: Sequence[Any]) -> dict[str, StoredRows]:
        """Return the rows by view, empty ones where there are none.

        Raises StateError for a row that another declaration of its view made.
        """
        keys: dict[str, list[str]] = {view.name: [] for view in self._topology.rekeyed}
        payloads: dict[str, list[bytes | None]] = {name: [] for name in keys}
        for rows, found in zip(request.rows, replies, strict=True):
            for (view, entity), payload in zip(rows, found, strict=True):
                keys[view].append(entity)
                payloads[view].append(payload)
        return {
            view.name: StoredRows(view.plan.row_dtype, keys[view.name], payloads[view.name])
            for view in self._topology.rekeyed
        }
