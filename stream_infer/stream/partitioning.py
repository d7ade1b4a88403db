"""Where a record goes and how much room it takes, as Kafka's default producer sees it."""

from collections.abc import Sequence

from aiokafka.partitioner import murmur2

from stream_infer.stream.processing import OutgoingRecord

BATCH_OVERHEAD_BYTES = 61 + 32
"""Header of a record batch, and the most that a lone record needs besides its fields."""
KEYS_CACHED_MAX = 65_536
"""Keys of a stream may all differ: remembering them must not cost much."""


class Partitioner:
    """Key to partition as Kafka's default partitioner: murmur2, cached; no key: in turns."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, int] = {}
        self._turn = 0

    def partition(self, key: bytes | None, partitions: Sequence[int]) -> int:
        """Return the partition, of those given in order, for a key."""
        if key is None:
            self._turn += 1
            return partitions[self._turn % len(partitions)]
        hashed = self._hashes.get(key)
        if hashed is None:
            if len(self._hashes) >= KEYS_CACHED_MAX:
                self._hashes.clear()
            hashed = self._hashes[key] = murmur2(key) & 0x7FFFFFFF
        return partitions[hashed % len(partitions)]


def record_bytes(record: OutgoingRecord) -> int:
    """Return the most that a record takes in a batch of its own, uncompressed."""
    size = len(record.key or b"") + len(record.value or b"") + BATCH_OVERHEAD_BYTES
    if record.headers:
        size += sum(len(name.encode()) + len(value) + 10 for name, value in record.headers)
    return size
