"""Dead letters: the original record, untouched, with the reason in its headers."""

from stream_infer.stream.processing import TP, ConsumerRecord, OutgoingRecord

REASON = "si-reason"
STAGE = "si-stage"
TOPIC = "si-topic"
PARTITION = "si-partition"
OFFSET = "si-offset"
TIMESTAMP = "si-timestamp-ms"
TOPOLOGY = "si-topology"
HEADERS = (REASON, STAGE, TOPIC, PARTITION, OFFSET, TIMESTAMP, TOPOLOGY)

REASON_CHARACTERS_MAX = 2_000


def dead_letter(
    record: ConsumerRecord, at: TP, *, topology: str, topic: str, stage: str, reason: str
) -> OutgoingRecord:
    """Return the dead letter of a record consumed from `at`, for the dead-letter `topic`.

    Key, value (None included) and headers stay as they were; our headers are appended as UTF-8
    text. Headers of an earlier dead letter of the same record (a replay) are replaced.
    """
    ours = {
        REASON: reason[:REASON_CHARACTERS_MAX],
        STAGE: stage,
        TOPIC: at.topic,
        PARTITION: str(at.partition),
        OFFSET: str(record.offset),
        TIMESTAMP: str(record.timestamp),
        TOPOLOGY: topology,
    }
    kept = tuple((name, value) for name, value in record.headers if name not in ours)
    added = tuple((name, text.encode("utf-8", "replace")) for name, text in ours.items())
    return OutgoingRecord(topic=topic, key=record.key, value=record.value, headers=kept + added)


def unpublished(
    result: OutgoingRecord, prediction_id: str, *, topology: str, reason: str
) -> OutgoingRecord:
    """Return the dead letter of an event whose result could not be published; it has no body.

    Topic, partition and offset, taken from the prediction's id, say where the event itself is.
    """
    source = prediction_id.removeprefix(f"{topology}:").rsplit(":", 2)
    values = (reason[:REASON_CHARACTERS_MAX], "publish", *source, topology)
    names = (REASON, STAGE, TOPIC, PARTITION, OFFSET, TOPOLOGY)
    headers = tuple((name, text.encode()) for name, text in zip(names, values, strict=True))
    return OutgoingRecord(f"{topology}.dead_letters", result.key, None, headers=headers)
