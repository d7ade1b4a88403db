"""Every setting, its unit and its bounds; from the environment, over a TOML file, over defaults.

The environment variable of a field is `STREAM_INFER_` and its name in capitals;
`STREAM_INFER_CONFIG` names the TOML file, whose keys are the fields' names.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stream_infer.core.errors import SettingsError, did_you_mean

PREFIX = "STREAM_INFER_"
NOT_SETTINGS = tuple(f"{PREFIX}{name}" for name in ("CONFIG", "FAILPOINTS", "TEST_"))

Bytes = Annotated[int, Meta(ge=1_024, le=1 << 36)]
Count = Annotated[int, Meta(ge=1, le=100_000_000)]
Milliseconds = Annotated[int, Meta(ge=0, le=600_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(ge=0.001, le=86_400.0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of worker, server and command line; see `docs/reference/settings.md`."""

    broker: str = "localhost:9092"
    """Kafka bootstrap servers, host:port separated by commas."""
    redis: str = "redis://localhost:6379/0"
    """Redis of state and batch features; `redis+cluster://host:port,host:port` for a cluster. Its
    URL may hold a password: it is never logged."""
    models_dir: str = "models"
    """Folder of the model repository."""
    data_dir: str = ".demo"
    """Folder for what the programs themselves keep."""
    group: str = ""
    """Consumer group; empty: `stream-infer.TOPOLOGY`."""
    group_instance: str = ""
    """Static member id of this worker in the group; empty: a dynamic one."""
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = 4
    """Partitions of topics that the program creates."""
    replication_factor: Annotated[int, Meta(ge=1, le=9)] = 1
    """Replicas of topics that the program creates."""

    batch_records_max: Annotated[int, Meta(ge=1, le=100_000)] = 4_000
    """Most records in a micro-batch."""
    batch_bytes_max: Bytes = 4 << 20
    """Most bytes in a micro-batch, except that one record always fits."""
    in_flight_batches_max: Annotated[int, Meta(ge=1, le=64)] = 3
    """Micro-batches whose results may wait for acknowledgement at a time."""
    flush_interval_s: Seconds = 0.1
    """Most time between two writes of changed state; ten times that while behind the log."""
    commit_interval_s: Seconds = 0.5
    """Least time between two commits of source offsets."""
    merge_wait_ms: Milliseconds = 5_000
    """How long an event waits for another topic of its topology that has more to be fetched."""
    merge_idle_ms: Milliseconds = 0
    """How long an event waits for another topic of its topology that is at its end."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """How often readers of committed records may see a result; once: by Kafka's transactions."""
    transaction_timeout_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 60.0
    """Age at which Kafka aborts a transaction that nobody ended; at most what the broker allows."""
    fetch_max_wait_ms: Milliseconds = 500
    """How long the broker may hold a fetch for more bytes."""
    fetch_min_bytes: Annotated[int, Meta(ge=1, le=1 << 24)] = 1
    """How many bytes end a fetch's wait."""
    session_timeout_s: Seconds = 10.0
    """Silence after which the group gives a worker's partitions away."""
    heartbeat_interval_s: Seconds = 3.0
    """Time between two signs of life to the group."""
    drain_timeout_s: Seconds = 15.0
    """How long a stopping worker may take to finish what it has begun."""
    retry_max_s: Seconds = 5.0
    """Longest wait between two tries to reach a dependency; tries never end."""
    request_timeout_s: Seconds = 10.0
    """How long one request to Kafka or Redis may take."""
    result_bytes_max: Bytes = 1 << 20
    """Largest result record."""

    model_timeout_ms: Milliseconds = 1_000
    """How long one model may take over a micro-batch before the others go on without it; 0: any."""
    watchdog_timeout_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 60.0
    """How long a worker's event loop may stand still before its process ends; 0: for ever."""

    while_state_away: Literal["pause", "degrade"] = "pause"
    """What a worker does while Redis is away: `pause`, or `degrade`: predict without state, flagged
    as such, and fold the events when Redis is back."""
    state_away_after_s: Seconds = 1.0
    """How long Redis may not answer before `while_state_away = "degrade"` takes it for away."""
    state_rows_max: Count = 1_000_000
    """Rows kept in memory for one view of one partition; the least recently used leave first."""
    catch_up_max_s: Annotated[float, Meta(ge=0.0, le=31_536_000.0)] = 604_800.0
    """How far behind the log a worker may fall before idle rows that it still needs expire."""
    batch_cache_rows_max: Count = 1_000_000
    """Rows of batch features kept in memory, over all views: each takes some 150 bytes, and 8 a
    feature."""
    batch_cache_age_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 1.0
    """Age at which a cached batch feature is read again, unless it is known not to have changed."""
    batch_cache_follow: bool = True
    """Let Redis tell which batch features change, and read only those (Redis 6 on, no cluster)."""

    http_host: str = "127.0.0.1"
    """Address the HTTP server listens on."""
    http_port: Port = 8080
    """Port the HTTP server listens on; 0: any free one."""
    http_token: str = ""
    """Bearer token that callers must send; empty: none, on loopback addresses only."""
    http_body_bytes_max: Bytes = 1 << 20
    """Largest request body."""
    http_events_max: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    """Most events in one request."""
    http_wait_max_ms: Annotated[int, Meta(ge=1, le=600_000)] = 10
    """How long an event may wait to be scored before further requests are answered 503; a batch's
    worth of events may wait for the next one, less while requests are refused and turns of the loop
    take more processor time than a fifth of this."""
    http_insecure: bool = False
    """Allow a non-loopback address without a token."""
    sse_clients_max: Annotated[int, Meta(ge=1, le=100_000)] = 100
    """Most callers that follow results live at a time."""
    metrics_port: Port = 0
    """Port of the worker's own /metrics and health pages; 0: none."""

    def __repr__(self) -> str:
        return "Settings(…)"


FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def load(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Return the settings of a program; `overrides` that are not None win over everything.

    Raises SettingsError, naming the setting and its bounds, for an unknown or unacceptable one.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    config = environment.get(f"{PREFIX}CONFIG")
    if config:
        values.update(_from_file(Path(config)))
    for name, text in environment.items():
        field = name.removeprefix(PREFIX).lower()
        if name.startswith(PREFIX) and field in FIELDS:
            values[field] = text
        elif name.startswith(PREFIX) and not name.startswith(NOT_SETTINGS):
            raise SettingsError(f"environment variable {name}{did_you_mean(field, FIELDS)}")
    values.update({name: value for name, value in overrides.items() if value is not None})
    return _checked(values)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {path}: {error}") from error


def _checked(values: Mapping[str, Any]) -> Settings:
    for name, value in values.items():
        if name not in FIELDS:
            raise SettingsError(f"setting {name!r}{did_you_mean(name, FIELDS)}")
        try:
            msgspec.convert(value, FIELDS[name].type, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"setting {name!r}: {error}") from error
    return msgspec.convert(dict(values), Settings, strict=False)
