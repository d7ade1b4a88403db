"""Two live workers with one static member id."""

from tests.faults.harness import Run
from tests.faults.verifier import Figures

RATE = 800.0
GIVE_UP_MAX_S = 30.0


def overlapping_members(run: Run) -> Figures:
    """A second worker takes the first one's member id: the first ends, and says what to do."""
    older = run.worker(group_instance=run.name)
    run.until_reading(older)
    run.generate(8_000, RATE)
    run.until_sent(run.random.randrange(1_000, 3_000))
    with run.fault():
        newer = run.worker(group_instance=run.name)
        run.until("the older one ends", lambda: not older.running, GIVE_UP_MAX_S)
    run.figures.notes["exit_code"] = code = older.process.poll()
    if code in (0, None) or not older.said("group_instance"):
        run.figures.failures.append(f"the older one ended with {code}: {older.log}")
    if older.said("Traceback"):
        run.figures.failures.append(f"the older one ended with a trace: {older.log}")
    return run.finish(newer)
