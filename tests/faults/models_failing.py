"""Faults of models: one hangs, is slow, raises or gives NaN for a while, and is well again."""

import re

from tests.faults import hooks
from tests.faults.harness import Run, Worker
from tests.faults.verifier import Figures, Judge

RATE = 800.0
MODEL = "by_shop__amount_1h"
"""Its feature is a number for every prediction: without a fault, it always has a score."""
TIMEOUT_MS = 600
REASONS = {"hang": "timeout", "raise": "error", "nan": "nan", "slow": None}
DEGRADED = r"^stream_infer_degraded_predictions_total{.*model:%s.* (\S+)$"
FAILURES = r'^stream_infer_model_failures_total{model="%s",reason="(\w+)".* (\S+)$'
LAG = r"^stream_infer_stream_lag_records{.*} (\S+)$"


def model_fails(run: Run, *, fault: str) -> Figures:
    """One model fails under load; the others' scores arrive, and the state is as without it."""
    told = run.directory / "models.json"
    hooks.set_models(told, {})
    worker = run.worker(test={"MODELS": str(told)}, model_timeout_ms=TIMEOUT_MS)
    run.until_reading(worker)
    run.generate(9_000, RATE)
    run.until_sent(run.random.randrange(1_500, 2_500))
    with run.fault():
        before, sent = run.ends(worker)["prediction"], run.sent()
        hooks.set_models(told, {MODEL: fault})
        run.until_sent(sent + 3_000)
        during = run.ends(worker)["prediction"] - before
        lag = lag_of(run, worker)
        hooks.set_models(told, {})
    run.until_generated()
    run.until_done()
    text = run.metrics(worker)
    counted = sum(int(float(n)) for n in re.findall(DEGRADED % MODEL, text, re.M))
    reasons = {name: int(float(n)) for name, n in re.findall(FAILURES % MODEL, text, re.M)}
    failing = frozenset([MODEL] if REASONS[fault] else [])
    figures = run.finish(worker, judge=Judge(failing=failing))
    found = figures.notes.get("degraded", {}).get(MODEL, 0)
    figures.notes |= {"counted": counted, "failed_batches": reasons}
    figures.notes |= {"predictions_during": during, "lag_at_its_end": lag}
    if counted != found:
        figures.failures.append(f"the metric counts {counted} degraded, there are {found}")
    if bool(found) != bool(failing) or set(reasons) != {REASONS[fault]} - {None}:
        figures.failures.append(f"{found} degraded predictions, failures {reasons}")
    # A worker that stood still would have none, and be 3,000 behind; two in three are predicted.
    if during < 800 or lag > 3 * RATE:
        figures.failures.append(f"meanwhile only {during} predictions, {lag} records behind")
    return figures


def lag_of(run: Run, worker: Worker) -> int:
    """How many records a worker says it is behind."""
    return sum(int(float(n)) for n in re.findall(LAG, run.metrics(worker), re.M))
