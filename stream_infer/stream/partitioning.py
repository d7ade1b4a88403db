"""Where a record goes and how much room it takes, as Kafka's default producer sees it."""

from collections.abc import Sequence, Set

import numpy as np
import numpy.typing as npt
from aiokafka.partitioner import murmur2

from stream_infer.core.arrays import FEW, Ints
from stream_infer.stream.processing import Headers, OutgoingRecord

BATCH_OVERHEAD_BYTES = 61 + 32
"""Header of a record batch, and the most that a lone record needs besides its fields."""
KEYS_CACHED_MAX = 65_536
"""Keys of a stream may all differ: remembering them must not cost much."""
KEY_BYTES_MAX = 256
"""Longer keys are hashed one by one: together, each takes the room of the longest."""
_SEED, _MIX, _WORD_BYTES = 0x9747B28C, np.uint32(0x5BD1E995), 4
_POSITIVE = 0x7FFFFFFF


class Partitioner:
    """Key to partition as Kafka's default partitioner: murmur2, cached; no key: in turns."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, int] = {}
        self._turn = 0

    def hashes(self, keys: Sequence[bytes]) -> Ints:
        """Return the hash of each of n keys, int64[n]; of many for a tenth of the price of each."""
        known = self._hashes
        found = list(map(known.get, keys))
        if None in found:
            fresh = _hashed(
                {key for key, hashed in zip(keys, found, strict=True) if hashed is None}
            )
            if len(known) + len(fresh) > KEYS_CACHED_MAX:
                known.clear()
            known.update(fresh)
            found = [
                fresh[key] if hashed is None else hashed
                for key, hashed in zip(keys, found, strict=True)
            ]
        return np.array(found, np.int64)

    def partition(self, key: bytes | None, partitions: Sequence[int]) -> int:
        """Return the partition, of those given in order, for a key."""
        if key is None:
            self._turn += 1
            return partitions[self._turn % len(partitions)]
        hashed = self._hashes.get(key)
        if hashed is None:
            if len(self._hashes) >= KEYS_CACHED_MAX:
                self._hashes.clear()
            hashed = self._hashes[key] = murmur2(key) & _POSITIVE
        return partitions[hashed % len(partitions)]


def _hashed(keys: Set[bytes]) -> dict[bytes, int]:
    together = [key for key in keys if len(key) <= KEY_BYTES_MAX] if len(keys) > FEW else []
    hashes = dict(zip(together, (murmur2_of(together) & _POSITIVE).tolist(), strict=True))
    return hashes | {key: murmur2(key) & _POSITIVE for key in keys if key not in hashes}


def murmur2_of(keys: Sequence[bytes]) -> npt.NDArray[np.uint32]:
    """Return the hash of each of n keys as uint32[n] (`aiokafka.partitioner.murmur2`).

    >>> [murmur2(b"one"), murmur2(b"three")] == murmur2_of([b"one", b"three"]).tolist()
    True
    """
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    full = lengths // _WORD_BYTES
    words = int(full.max(initial=0)) + 1
    padded = b"".join([key.ljust(words * _WORD_BYTES, b"\0") for key in keys])
    columns = np.frombuffer(padded, "<u4").reshape(len(keys), words).T.astype(np.uint32)
    found = np.uint32(_SEED) ^ lengths
    for number, word in enumerate(columns):
        # The last, incomplete word of a key is padded with zeros, and mixed in as it is.
        rest = (found ^ word) * _MIX
        word *= _MIX
        word ^= word >> 24
        word *= _MIX
        whole = (found * _MIX) ^ word
        found = np.where(number < full, whole, found)
        ends = (number == full) & (lengths % _WORD_BYTES > 0)
        np.copyto(found, rest, where=ends)
    found ^= found >> 13
    found *= _MIX
    found ^= found >> 15
    return found


def record_bytes(record: OutgoingRecord) -> int:
    """Return the most that a record takes in a batch of its own, uncompressed."""
    size = len(record.key or b"") + len(record.value or b"") + BATCH_OVERHEAD_BYTES
    return size + headers_bytes(record.headers) if record.headers else size


def headers_bytes(headers: Headers) -> int:
    """Return the most that headers take; a value may be null, in spite of its type."""
    return sum(len(name.encode()) + len(value or b"") + 10 for name, value in headers)
