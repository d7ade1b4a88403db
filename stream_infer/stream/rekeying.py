"""The first stage's part in rekeyed views: it sends events on, and reads the rows of others."""

from collections.abc import Mapping, Sequence
from typing import Any

from stream_infer.core.columns import Batch
from stream_infer.core.engine import Folded
from stream_infer.core.rekeyed import keyed_views
from stream_infer.core.stored_rows import StoredRows
from stream_infer.core.topology import Topology
from stream_infer.monitoring.rekeyed import RekeyedCounts
from stream_infer.stream.forwarding import forwarded
from stream_infer.stream.processing import TP, OutgoingRecord
from stream_infer.stream.rekeyed_reader import RekeyedReader, RowRequest
from stream_infer.stream.work import Work


class Rekeying:
    """What a topology's processor does for its rekeyed views, and counts."""

    def __init__(self, topology: Topology, partitions: int, counts: RekeyedCounts) -> None:
        self._topic = topology.rekeyed_events
        self._keyed = keyed_views(topology)
        self._reader = RekeyedReader(topology, partitions)
        self._counts = counts

    def request(self, scored: Sequence[Batch]) -> RowRequest:
        """Return what reads the rows of scored events; the replies go to `absorb`."""
        return self._reader.request(scored)

    def absorb(self, request: RowRequest, replies: Sequence[Any]) -> Mapping[str, StoredRows]:
        """Return the rows by view."""
        return self._reader.absorb(request, replies)

    def sent_on(self, work: Work, folded: Folded) -> list[tuple[TP, OutgoingRecord]]:
        """Return the records that send a batch's events on, each with the partition that its event
        is of; count them, and what was read.
        """
        places = work.partitions(folded.bounds)
        found = forwarded(self._topic, self._keyed, places, work.records, folded.kept, folded.fresh)
        self._counts.forwarded += len(found)
        self._counts.read(folded.rekeyed)
        return found
