"""Running the program as a user does: a process, its exit code, and its two outputs."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PAYMENTS = """
from datetime import datetime

from stream_infer import Event, Stream, Topology, count, fields, mean, weighted_mean
from stream_infer import Label


class Payment(Event, tag="payment"):
    payment_id: str
    account: str
    at: datetime
    amount: float


class Verdict(Event, tag="verdict"):
    payment_id: str
    account: str
    at: datetime
    loss: float


payments = Stream("STREAM", Payment | Verdict, key="account", time="at")
by_account = payments.view(
    "by_account",
    by=["account"],
    features={
        "payments_1h": count(over="1h", of=Payment),
        "amount_mean_1h": mean("amount", over="1h", of=Payment),
    },
)
topology = Topology(
    name="NAME",
    on=Payment,
    inputs=[fields("amount"), by_account],
    graph=weighted_mean(["boosted_trees", "mlp", "linear"]),
    output="NAME.predictions",
    label=Label(of=Verdict, key="payment_id", value="loss"),
)
"""


@dataclass(frozen=True)
class Ran:
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be one JSON object and nothing else."""
        return json.loads(self.out)


def program(*arguments: str) -> list[str]:
    """The command line of the program."""
    return [sys.executable, "-m", "stream_infer.cli", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment, less settings of its own, with the package importable anywhere."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_INFER_")}
    return plain | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | dict(extra or {})


def run(
    *arguments: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout_s: float = 120.0,
) -> Ran:
    """Run the program to its end."""
    done = subprocess.run(
        program(*arguments),
        cwd=cwd,
        env=environment(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def write_topology(folder: Path, name: str, *, stream: str | None = None, **changes: str) -> Path:
    """Write `topologies/NAME.py` under `folder`; `changes` replace parts of its text by others."""
    text = PAYMENTS.replace("NAME", name).replace("STREAM", stream or f"{name}.events")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "topologies" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    # A package proper, so that it comes before the repository's own of that name.
    (path.parent / "__init__.py").touch()
    path.write_text(text)
    return path


def one_line(err: str) -> str:
    """The only line of an error; fails where there are several, as of a trace."""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


def payment_lines(n: int, *, verdicts: bool = True) -> Sequence[str]:
    """Events of 7 accounts, five minutes apart from 2024 on; a loss follows from the amounts."""
    lines = []
    for i in range(n):
        at = f"2024-01-{1 + i // 288:02d}T{i // 12 % 24:02d}:{i % 12 * 5:02d}:00Z"
        common = {"payment_id": f"p{i}", "account": f"a{i % 7}", "at": at}
        amount = float(i * 37 % 101)
        lines.append(json.dumps({"type": "payment", **common, "amount": amount}))
        if verdicts:
            loss = amount * 0.5 + i % 7
            lines.append(json.dumps({"type": "verdict", **common, "loss": loss}))
    return lines
