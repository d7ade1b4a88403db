"""The floor of a latency: the same producer and the same kind of reader, with no worker between."""

import uuid

import numpy as np

from benchmarks.open_loop import finished, percentiles, receive, send, settle
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, Place
from benchmarks.processes import BenchmarkError

WARM_UP_MAX_S = 0.5
"""There is no worker to warm, and the broker is warm."""
STATED = ("p50", "p99")


def one_run(place: Place, rate: int, options: Options) -> dict[str, tuple[float, str]]:
    """From when an event is due to when the event itself is readable, at one rate."""
    topic = f"alone_{uuid.uuid4().hex[:8]}"
    warm_up_s = min(options.warm_up_s, WARM_UP_MAX_S)
    place.create({topic: PARTITIONS})
    output = place.folder / f"{topic}.npy"
    receiver = sender = None
    try:
        receiver = receive(place, topic, output, field="at")
        sender = send(place, topic, rate, warm_up_s + options.seconds)
        said = finished(sender)
        settle(place, topic, said["sent"])
        receiver.stop()
    finally:
        for helper in (receiver, sender):
            if helper is not None:
                helper.kill()
        place.kafka.delete_topics([topic])
    times = np.load(output)
    if len(times) < said["sent"]:
        raise BenchmarkError(f"{said['sent'] - len(times)} of {said['sent']} events never came")
    measured = times[times[:, 0] >= said["start_us"] + warm_up_s * 1e6]
    found = percentiles(measured[:, 1] - measured[:, 0])
    return {f"{name}, Kafka alone": found[name] for name in STATED}
