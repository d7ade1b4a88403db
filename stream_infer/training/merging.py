"""Files of several streams as one log, partition by partition, in the order of a worker."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from stream_infer.core.merging import PASSES, EventTimes, Merge

CHUNK_EVENTS = 2_000
Record = tuple[str, bytes]
"""Partition key, and value."""


def merged(
    streams: Sequence[Iterable[Record]],
    times: Sequence[EventTimes],
    partition_of: Callable[[bytes], int],
) -> Iterator[tuple[int, int, bytes]]:
    """Yield (partition, stream, value), in each partition as if its topics had been a backlog.

    `streams` give the records of each stream in the order of its log, and `times` read their event
    times. Streams are read as far as the order needs: those that are behind first.
    """
    sources = [iter(stream) for stream in streams]
    reached_us: dict[int, int] = dict.fromkeys(range(len(sources)), PASSES)
    merges: dict[int, Merge[bytes]] = {}
    while reached_us:
        source = min(reached_us, key=lambda number: reached_us[number])
        chunk = list(islice(sources[source], CHUNK_EVENTS))
        if not chunk:
            del reached_us[source]
        else:
            times_us = times[source]([value for _, value in chunk], None)
            reached_us[source] = max(reached_us[source], *times_us)
            for (key, value), time_us in zip(chunk, times_us, strict=True):
                partition = partition_of(key.encode())
                merge = merges.get(partition)
                if merge is None:
                    merge = merges[partition] = Merge[bytes](len(sources))
                merge.put(source, [value], [time_us])
        for partition, merge in merges.items():
            while (first := _ready(merge, reached_us)) is not None:
                yield partition, first, merge.pop(first)


def _ready(merge: Merge[bytes], unread: Iterable[int]) -> int | None:
    """Return the stream whose record comes next, None where another one must be read first."""
    first = merge.next()
    if first is None or merge.first(first)[0] == PASSES:
        return first
    return None if any(not merge.count(source) for source in unread) else first
