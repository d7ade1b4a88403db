"""What the stream side counts, for health and metrics."""

from dataclasses import dataclass, field

from stream_infer.monitoring.metrics import Histogram
from stream_infer.stream.processing import TP


@dataclass(slots=True)
class StreamCounters:
    """Plain numbers, written by the worker's loop and read by whoever shows them.

    Times are monotonic seconds (`time.monotonic`), None before the first.
    """

    consumed: int = 0
    """Records handed to the processor (a repeated attempt is not counted again)."""
    batches: int = 0
    produced: int = 0
    """Records acknowledged by Kafka."""
    refused: int = 0
    """Records too large for their topic."""
    commits: int = 0
    commit_failures: int = 0
    retries: int = 0
    """Attempts to process, store or deliver that failed and were made again."""
    fenced: int = 0
    rebalances: int = 0
    in_flight_batches: int = 0
    waiting_records: int = 0
    waiting_bytes: int = 0
    last_poll_s: float | None = None
    last_progress_s: float | None = None
    """Last time that a batch was processed or acknowledged."""
    publish_s: Histogram = field(default_factory=Histogram)
    """From handing results over to Kafka's acknowledgement, by micro-batch."""
    oldest_in_flight_s: float | None = None
    """When the oldest batch not yet acknowledged was taken."""
    lag_records: dict[TP, int] = field(default_factory=dict)
    """Per partition owned: end of the log minus the first offset not acknowledged."""
    merge_waits: dict[str, int] = field(default_factory=dict)
    """By topic: how often it was waited for longer than `merge_wait_ms`, and gone on without."""
    ready: bool = False
    """Partitions (possibly none) are assigned and open."""
    retrying: dict[str, str] = field(default_factory=dict)
    """What is being tried again, and why; empty when all is well."""
