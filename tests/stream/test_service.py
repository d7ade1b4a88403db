"""What the process of `stream-infer worker` has around its event loop."""

import threading

import pytest

from stream_infer.monitoring.watchdog import Heartbeat
from stream_infer.settings import Settings
from stream_infer.stream import service


@pytest.mark.parametrize("watchdog_timeout_s", [30.0, 0.0])
def test_a_worker_is_watched_as_the_setting_says(
    watchdog_timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Heartbeat, bool]] = []

    def run_worker(apps: object, *, grace_s: float, heartbeat: Heartbeat) -> int:
        watched = any(thread.name == "watchdog" for thread in threading.enumerate())
        seen.append((heartbeat, watched))
        return 0

    monkeypatch.setattr(service, "run_worker", run_worker)
    assert service.run([], Settings(watchdog_timeout_s=watchdog_timeout_s)) == 0
    ((heartbeat, watched),) = seen
    assert watched == bool(watchdog_timeout_s)
    assert heartbeat.standstill_max_s == (watchdog_timeout_s or 60.0)
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
