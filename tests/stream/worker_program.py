"""A worker for tests that need a process to kill: `python worker_program.py`, or Faust's own CLI.

The environment says what to do: BROKER, SOURCE, OUTPUT, GROUP, COMMIT_INTERVAL_S, WORK_S.
"""

import os
import sys

from stream_infer.stream.worker import run_worker, set_up_logging
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import echo_app, stream_settings

app = echo_app(
    stream_settings(
        os.environ["BROKER"],
        commit_interval_s=float(os.environ.get("COMMIT_INTERVAL_S", "0.05")),
        batch_records_max=100,
        member_id=os.environ.get("MEMBER_ID"),
    ),
    os.environ["SOURCE"],
    os.environ["OUTPUT"],
    Echo(os.environ["OUTPUT"], work_s=float(os.environ.get("WORK_S", "0"))),
    os.environ["GROUP"],
)

if __name__ == "__main__":
    set_up_logging("info")
    sys.exit(run_worker(app, grace_s=10))
