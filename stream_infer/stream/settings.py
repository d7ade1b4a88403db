"""Settings of the stream side; every field has a unit and a bound."""

from typing import Literal

import msgspec

from stream_infer.core.errors import SettingsError

_BOUNDS: dict[str, tuple[float, float]] = {
    "topic_partitions": (1, 10_000),
    "batch_records_max": (1, 100_000),
    "batch_bytes_max": (1_024, 1 << 30),
    "waiting_records_max": (1, 1_000_000),
    "waiting_bytes_max": (1_024, 1 << 32),
    "in_flight_batches_max": (1, 64),
    "commit_interval_s": (0.0, 60.0),
    "flush_interval_s": (0.001, 60.0),
    "merge_wait_ms": (0, 600_000),
    "merge_idle_ms": (0, 600_000),
    "fetch_max_wait_ms": (1, 30_000),
    "fetch_min_bytes": (1, 1 << 26),
    "fetch_partition_bytes_max": (1_024, 1 << 30),
    "drain_timeout_s": (0.1, 600.0),
    "retry_delay_min_s": (0.001, 60.0),
    "retry_delay_max_s": (0.001, 600.0),
    "session_timeout_s": (1.0, 1_800.0),
    "heartbeat_interval_s": (0.1, 600.0),
    "poll_interval_max_s": (1.0, 86_400.0),
    "rebalance_timeout_s": (1.0, 3_600.0),
    "request_timeout_s": (1.0, 1_800.0),
    "transaction_timeout_s": (1.0, 86_400.0),
    "result_batch_bytes_max": (1_024, 1 << 26),
    "message_bytes_max": (1_024, 1 << 30),
}


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker consumes, batches, produces and commits.

    Raises `SettingsError`, naming the setting and its bounds, for a value outside of them.
    """

    broker: str = "localhost:9092"
    """Addresses `host:port[,host:port…]`, with or without `kafka://`."""
    group: str | None = None
    """Consumer group; the topology's name where None."""
    member_id: str | None = None
    """Static member id (`group.instance.id`): a restart within the session moves no partition."""
    offset_reset: Literal["earliest", "latest"] = "earliest"
    data_dir: str | None = None
    """Where Faust may keep files; a temporary directory where None."""

    topic_partitions: int = 4
    """Partitions of topics that are created at the start; existing ones may have any number."""

    batch_records_max: int = 4_096
    batch_bytes_max: int = 8 << 20
    waiting_records_max: int = 16_384
    waiting_bytes_max: int = 64 << 20
    in_flight_batches_max: int = 3
    commit_interval_s: float = 0.5
    flush_interval_s: float = 0.1

    merge_wait_ms: int = 5_000
    """How long a record waits for another topic of its topology that has more to be fetched."""
    merge_idle_ms: int = 0
    """How long a record waits for another topic of its topology that is at its end."""

    fetch_max_wait_ms: int = 500
    fetch_min_bytes: int = 1
    fetch_partition_bytes_max: int = 4 << 20

    drain_timeout_s: float = 10.0
    retry_delay_min_s: float = 0.1
    retry_delay_max_s: float = 5.0
    session_timeout_s: float = 10.0
    heartbeat_interval_s: float = 1.0
    poll_interval_max_s: float = 300.0
    rebalance_timeout_s: float = 30.0
    request_timeout_s: float = 30.0

    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    transaction_timeout_s: float = 60.0

    result_batch_bytes_max: int = 900_000
    message_bytes_max: int = 1_048_576
    """Largest record produced where the topic's own limit cannot be read."""
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} = {value!r} is outside {low:g} … {high:g}")
        if self.heartbeat_interval_s >= self.session_timeout_s:
            raise SettingsError(
                f"heartbeat_interval_s = {self.heartbeat_interval_s:g} must be below "
                f"session_timeout_s = {self.session_timeout_s:g}"
            )
        if self.session_timeout_s > self.request_timeout_s:
            raise SettingsError(
                f"session_timeout_s = {self.session_timeout_s:g} must not exceed "
                f"request_timeout_s = {self.request_timeout_s:g}"
            )
        if self.drain_timeout_s >= self.rebalance_timeout_s:
            raise SettingsError(
                f"drain_timeout_s = {self.drain_timeout_s:g} must be below "
                f"rebalance_timeout_s = {self.rebalance_timeout_s:g}"
            )

    @property
    def bootstrap(self) -> list[str]:
        """Addresses as aiokafka takes them."""
        return [
            address.strip().removeprefix("kafka://")
            for address in self.broker.replace(";", ",").split(",")
            if address.strip()
        ]
