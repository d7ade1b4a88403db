"""Events sent on by another key: the records that one stage publishes and the next one reads."""

from collections.abc import Sequence

import numpy as np

from stream_infer.core.arrays import Bools
from stream_infer.core.columns import Batch
from stream_infer.core.engine import Engine
from stream_infer.core.rekeyed import KeyedViews, split_key
from stream_infer.core.rekeyed_state import Received
from stream_infer.stream.processing import TP, ConsumerRecord, OutgoingRecord

FROM = "si-from"
"""Header that says which record an event is: `TOPIC:PARTITION:OFFSET`."""


def forwarded(
    topic: str,
    keyed: Sequence[KeyedViews],
    places: Sequence[TP],
    records: Sequence[ConsumerRecord],
    kept: Batch,
    fresh: Bools,
) -> list[tuple[TP, OutgoingRecord]]:
    """Return the records that send kept events on, in offset order, their bytes unchanged.

    One for each key of which the event has all fields and some view uses its type, with where the
    event is: `places` of all n. Events that are not `fresh`, bool[n], were sent on before.
    `kept.positions` index `records`.
    """
    found: list[tuple[TP, OutgoingRecord]] = []
    if not keyed:
        return found
    wanted = [
        (views, np.isin(kept.kinds, views.kinds).tolist(), kept.keys(views.by)) for views in keyed
    ]
    offsets = kept.offsets.tolist()
    for i, position in enumerate(kept.positions.tolist()):
        if not fresh[i]:
            continue
        tp = places[i]
        headers = ((FROM, f"{tp.topic}:{tp.partition}:{offsets[i]}".encode()),)
        for views, used, entities in wanted:
            entity = entities[i]
            if used[i] and entity is not None:
                key = views.record_key(entity).encode()
                record = OutgoingRecord(topic, key, records[position].value, headers)
                found.append((tp, record))
    return found


def received(
    engine: Engine, keyed: Sequence[KeyedViews], records: Sequence[ConsumerRecord]
) -> Received:
    """Decode records of the rekeyed topic; those that no first stage made are rejects.

    Event times are not checked against the records' own: the first stage has checked them.
    """
    known = {views.name for views in keyed}
    origins = [_origin(record, known) for record in records]
    values = [
        None if origin is None else record.value
        for origin, record in zip(origins, records, strict=True)
    ]
    offsets = np.fromiter((record.offset for record in records), np.int64, len(records))
    batch = engine.decode(values, offsets, None)
    chosen = [origin for i in batch.positions.tolist() if (origin := origins[i]) is not None]
    return Received(
        batch,
        [name for name, _, _ in chosen],
        [source for _, source, _ in chosen],
        np.fromiter((offset for _, _, offset in chosen), np.int64, len(chosen)),
    )


def _origin(record: ConsumerRecord, known: set[str]) -> tuple[str, str, int] | None:
    """Return the name of the views' key, the source partition and the offset there."""
    header = next((value for name, value in record.headers if name == FROM), None)
    if header is None or record.key is None:
        return None
    try:
        name, _ = split_key(record.key.decode())
        source, _, offset = header.decode().rpartition(":")
        return (name, source, int(offset)) if name in known and source else None
    except ValueError:
        return None
