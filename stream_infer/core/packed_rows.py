"""Rows as they are stored: one that is mostly empty without its empty words.

A row has a cell for every tile of its windows, and most keys are seen in few of them. What is
stored of a row is a pure function of its bytes, and never longer than these: the row itself, or a
bit for each of its 8-byte words that says whether it is other than zero, and then those that are.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stream_infer.core.errors import StateError

WORD = np.dtype(np.uint64)
WORD_BYTES = WORD.itemsize
WORDS_MIN = 16
"""Shorter rows are stored as they are."""
CHUNK_BYTES = 1 << 19
"""So many bytes of rows are packed at a time, for the processor's cache."""

Words = npt.NDArray[np.uint64]


def is_packable(row_bytes: int) -> bool:
    """Tell whether rows of a length may be stored without their empty words."""
    return row_bytes % WORD_BYTES == 0 and row_bytes >= WORDS_MIN * WORD_BYTES


def pack(rows: Words, places: Sequence[int]) -> list[bytes]:
    """Return what is stored of the rows uint64[rows, words] at `places`."""
    packed: list[bytes] = []
    at_a_time = max(1, CHUNK_BYTES // (rows.shape[1] * WORD_BYTES))
    for begin in range(0, len(places), at_a_time):
        packed += _packed(rows[places[begin : begin + at_a_time]])
    return packed


def _packed(rows: Words) -> Iterator[bytes]:
    words = rows.shape[1]
    filled = rows != 0
    places = np.flatnonzero(filled)
    ends = np.searchsorted(places, np.arange(words, rows.size + 1, words))
    marks, mark_bytes = np.packbits(filled, axis=1).tobytes(), _mark_bytes(words)
    values = rows.reshape(-1)[places].tobytes()
    start = 0
    for number, end in enumerate((ends * WORD_BYTES).tolist()):
        if 2 * (end - start) > words * WORD_BYTES:
            yield rows[number].tobytes()
        else:
            own_marks = marks[number * mark_bytes : number * mark_bytes + mark_bytes]
            yield own_marks + values[start:end]
        start = end


def unpack(keys: Sequence[str], payloads: Sequence[bytes | None], row_bytes: int) -> bytes:
    """Return rows one after the other, each of its key's payload, an empty one where that is None.

    Raises StateError for a payload that is no row of that length, naming its key.
    """
    blank = bytes(row_bytes)
    rows: list[bytes | memoryview] = [blank if payload is None else payload for payload in payloads]
    packed = [place for place, row in enumerate(rows) if len(row) != row_bytes]
    if packed:
        found = _unpacked(
            [keys[i] for i in packed], [payloads[i] or b"" for i in packed], row_bytes
        )
        for place, row in zip(packed, found, strict=True):
            rows[place] = row
    return b"".join(rows)


def _unpacked(keys: Sequence[str], payloads: Sequence[bytes], row_bytes: int) -> list[memoryview]:
    words = row_bytes // WORD_BYTES
    size = _mark_bytes(words)
    for key, payload in zip(keys, payloads, strict=True):
        if len(payload) < size or not is_packable(row_bytes):
            raise _refusal(key, payload, row_bytes)
    marks = np.frombuffer(b"".join([payload[:size] for payload in payloads]), np.uint8)
    filled = np.unpackbits(marks.reshape(-1, size), axis=1, count=words).view(bool)
    counts = np.count_nonzero(filled, axis=1).tolist()
    for key, payload, count in zip(keys, payloads, counts, strict=True):
        if len(payload) != size + count * WORD_BYTES:
            raise _refusal(key, payload, row_bytes)
    values = b"".join([payload[size:] for payload in payloads])
    rows = np.zeros(filled.shape, np.uint64)
    rows[filled] = np.frombuffer(values, np.uint64)
    octets = memoryview(rows.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
    return [octets[start : start + row_bytes] for start in range(0, len(octets), row_bytes)]


def _mark_bytes(words: int) -> int:
    return -(-words // 8)


def _refusal(key: str, payload: bytes, row_bytes: int) -> StateError:
    return StateError(
        f"the stored row of {key!r} has {len(payload)} bytes, which are no row of {row_bytes}: "
        "it was written by another declaration of its view"
    )
