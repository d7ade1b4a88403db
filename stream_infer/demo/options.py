"""What can be chosen for a run of the demo."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """See `stream-infer demo --help`; `broker` and `redis` None: embedded ones."""

    speed: float | None = None
    rate: float | None = None
    broker: str | None = None
    redis: str | None = None
    duration_s: float | None = None
    json: bool = False
    port: int = 8080
    data_dir: str | None = None
    processes: int = 1
    reset_state: bool = False
    warm_up_days: int = 30
