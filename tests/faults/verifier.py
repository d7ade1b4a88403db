"""The judge of a scenario: reads the topics and the stored rows, folds the log, compares."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.fold import Expected, Record, differs, fold_log
from tests.faults.reading import PARTITIONS, read_topic, stored_rows
from tests.faults.rows import (
    STATE_UNAVAILABLE,
    UNSTEADY,
    folded_differently,
    plain,
    without_rows,
)

SLOW_MS = 1_000
LETTER = "si-stage"
"""The header that only a letter has."""


@dataclass
class Figures:
    """One line of a scenario."""

    scenario: str
    seed: int
    sent: int = 0
    predictions: int = 0
    updates: int = 0
    dead_letters: int = 0
    late: int = 0
    duplicates: int = 0
    outcomes: int = 0
    repeats: int = 0
    missing: int = 0
    extra: int = 0
    conflicting: int = 0
    wrong: int = 0
    state_differences: int = 0
    p99_before_ms: float | None = None
    p99_during_ms: float | None = None
    p99_after_ms: float | None = None
    recovery_s: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all that must be zero is, and nothing else failed."""
        zeros = (self.missing, self.extra, self.conflicting, self.wrong, self.state_differences)
        return not any(zeros) and not self.failures

    def line(self) -> str:
        """Return everything in one line."""
        shown = {name: value for name, value in asdict(self).items() if value not in ({}, [])}
        return " ".join(f"{name}={value}" for name, value in shown.items())


@dataclass(frozen=True)
class Fault:
    """When something was wrong, wall-clock milliseconds."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Judge:
    """What a scenario does on purpose, so that the verifier expects it."""

    failing: frozenset[str] = frozenset()
    """Models that fail for a while: where a prediction names one in `degraded`, it has no score."""
    too_large: Callable[[Record], bool] = lambda _: False
    """Events whose predictions do not fit into their topic: dead letters without a body."""
    refused: Callable[[Record], bool] = lambda _: False
    """Records that are dead letters, though the verifier finds them acceptable."""
    features: bool = True
    """Whether to fold features: for very long logs, only ends, ids and rows are compared."""
    unsteady: tuple[str, ...] = ()
    """What else a repeat may say differently, and a prediction than an undisturbed worker's."""
    degrades: bool = False
    """Whether the worker may predict without state: such a prediction says so, and invents nothing;
    a duplicate is not recognised then."""


AS_USUAL = Judge()


class Verifier:
    """Judges what a topology made of its source topic.

    `calm` names a topology that read the same topic without any fault: all rows must be equal.
    """

    def __init__(
        self,
        broker: str,
        redis: str,
        source: str,
        topology: str,
        calm: str,
        judge: Judge = AS_USUAL,
    ) -> None:
        self._rules = judge
        self._redis, self._source = redis, source
        self._topology, self._calm = topology, calm
        self._logs = read_source(broker, source)
        self._folded = {
            number: fold_log(records, judge.refused, features=judge.features)
            for number, records in self._logs.items()
        }
        self._results = {
            kind: read_topic(broker, f"{topology}.{kind}")
            for kind in ("predictions", "dead_letters", "outcomes")
        }
        self._too_large = {
            self._name(number, record.offset)
            for number, records in self._logs.items()
            for record in records
            if judge.too_large(record)
            if self._folded[number].ends[record.offset] == "prediction"
        }

    def judge(self, figures: Figures, faults: Sequence[Fault] = ()) -> Figures:
        """Fill in the figures."""
        folded = self._folded.values()
        figures.sent = sum(len(records) for records in self._logs.values())
        figures.updates = sum(part.count("update") for part in folded)
        figures.late = sum(part.count("late") for part in folded)
        figures.duplicates = sum(part.count("duplicate") for part in folded)
        self._judge_predictions(figures)
        self._judge_dead_letters(figures)
        self._judge_outcomes(figures)
        self._judge_state(figures)
        self._time(figures, faults)
        return figures

    def drop(self, kind: str, which: Callable[[Any], bool]) -> None:
        """Forget results, as if they had never been published: whether that is noticed."""
        self._results[kind] = [m for m in self._results[kind] if not which(m)]

    def _name(self, partition: int, offset: int) -> str:
        return f"{self._topology}:{self._source}:{partition}:{offset}"

    def _compare(
        self, figures: Figures, what: str, expected: set[str], found: Mapping[str, list[Any]]
    ) -> None:
        """Count what is missing, extra, repeated, and repeated with another content."""
        missing, extra = expected - found.keys(), found.keys() - expected
        figures.missing += len(missing)
        figures.extra += len(extra)
        figures.repeats += sum(len(contents) - 1 for contents in found.values())
        again = sorted(name for name, contents in found.items() if len(contents) > 1)
        if again:
            figures.notes[f"{what}_repeated"] = [name.partition(":")[2] for name in again[:6]]
        conflicting = [name for name, said in found.items() if any(c != said[0] for c in said)]
        figures.conflicting += len(conflicting)
        for problem, names in (
            ("missing", missing),
            ("extra", extra),
            ("conflicting", conflicting),
        ):
            if names:
                figures.failures.append(f"{what} {problem}: {sorted(names)[:3]}")

    def _judge_predictions(self, figures: Figures) -> None:
        found: dict[str, list[Any]] = defaultdict(list)
        unsteady = (*UNSTEADY, *self._rules.unsteady)
        for message in self._results["predictions"]:
            said = json.loads(message.value())
            said = {name: value for name, value in said.items() if name not in unsteady}
            found[said["prediction_id"]].append(said)
        expected = {
            self._name(number, offset): part.features.get(offset)
            for number, part in self._folded.items()
            for offset in part.of("prediction")
        }
        blind = {n for n, said in found.items() if STATE_UNAVAILABLE in said[0].get("degraded", ())}
        names = expected.keys() - self._too_large
        if self._rules.degrades:
            names |= blind & self._names("duplicate")
            figures.notes["without_state"] = len(blind)
        self._compare(figures, "predictions", names, found)
        figures.predictions = len(found)
        lacking: Counter[str] = Counter()
        for name in names:
            features = expected.get(name)
            if self._rules.degrades and name in blind:
                features = without_rows(found[name][0])
            for said in found.get(name, ())[:1] if features is not None else ():
                features = dict(features or {})
                for model in self._rules.failing:
                    if f"model:{model}" in said["degraded"] and said["scores"][model] is None:
                        features[model] = Expected(None)
                        lacking[model] += 1
                if wrong := differs(said["scores"], features):
                    figures.wrong += 1
                    if figures.wrong <= 3:
                        figures.failures.append(f"{name} is wrong in {wrong}")
        if self._rules.failing:
            figures.notes["degraded"] = dict(lacking)

    def _judge_dead_letters(self, figures: Figures) -> None:
        found: dict[str, list[Any]] = defaultdict(list)
        originals = {
            self._name(number, record.offset): record.value
            for number, records in self._logs.items()
            for record in records
        }
        for message in self._results["dead_letters"]:
            headers = dict(message.headers())
            if LETTER not in headers:  # it says that another one was replayed
                continue
            name = self._name(int(headers["si-partition"]), int(headers["si-offset"]))
            found[name].append((headers["si-reason"], message.value()))
            body = None if name in self._too_large else originals.get(name)
            if not headers["si-reason"] or body != message.value():
                figures.failures.append(f"dead letter {name} has no reason or another body")
        expected = self._names("dead letter") | self._too_large
        self._compare(figures, "dead letters", expected, found)
        figures.dead_letters = len(found)

    def _judge_outcomes(self, figures: Figures) -> None:
        found: dict[str, list[Any]] = defaultdict(list)
        for message in self._results["outcomes"]:
            said = json.loads(message.value())
            found[said["outcome_id"]].append(said)
        expected = {
            self._name(number, offset): (self._name(number, of_sale), label)
            for number, part in self._folded.items()
            for offset, (of_sale, label) in part.outcomes.items()
        }
        self._compare(figures, "outcomes", set(expected), found)
        figures.outcomes = len(found)
        for name, (prediction, label) in expected.items():
            for said in found.get(name, ())[:1]:
                if (said["prediction_id"], said["label"]) != (prediction, label):
                    figures.wrong += 1
                    figures.failures.append(f"outcome {name} pairs something else")

    def _names(self, end: str) -> set[str]:
        return {
            self._name(number, offset)
            for number, part in self._folded.items()
            for offset in part.of(end)
        }

    def _judge_state(self, figures: Figures) -> None:
        mine, theirs = (
            {
                key: plain(
                    key,
                    value,
                    name,
                    scored=not self._rules.failing,
                    unsteady=self._rules.unsteady,
                )
                for key, value in stored_rows(self._redis, name).items()
            }
            for name in (self._topology, self._calm)
        )
        different = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        for number, part in self._folded.items():
            different |= folded_differently(number, part, len(self._logs[number]), mine)
        figures.state_differences = len(different)
        if different:
            figures.failures.append(f"rows differ: {sorted(different)[:5]}")

    def _time(self, figures: Figures, faults: Sequence[Fault]) -> None:
        """Measure from the sending of an event to its first result."""
        sent = {
            self._name(number, record.offset): record.sent_ms
            for number, records in self._logs.items()
            for record in records
        }
        took: dict[str, tuple[int, int]] = {}
        for message in self._results["predictions"]:
            name = json.loads(message.value())["prediction_id"]
            if name in sent:
                result_ms = message.timestamp()[1]
                first_ms = min(result_ms, sum(took.get(name, (result_ms, 0))))
                took[name] = sent[name], first_ms - sent[name]
        if not faults or not took:
            figures.p99_before_ms = p99([ms for _, ms in took.values()])
            return
        recoveries = []
        slow = sorted(at + ms for at, ms in took.values() if ms >= SLOW_MS)
        for fault, until_ms in zip(
            faults, [f.start_ms for f in faults[1:]] + [1 << 62], strict=True
        ):
            late = [done for done in slow if fault.start_ms <= done < until_ms]
            recoveries.append((max(late) - fault.start_ms) / 1e3 if late else 0.0)
        figures.recovery_s = round(max(recoveries), 2)
        begin, end = faults[0].start_ms, faults[-1].start_ms + recoveries[-1] * 1e3
        end = max(end, faults[-1].end_ms)
        # What was sent before a fault and answered during it belongs to the fault.
        figures.p99_before_ms = p99([ms for at, ms in took.values() if at + ms < begin])
        during = [ms for at, ms in took.values() if at <= end and at + ms >= begin]
        figures.p99_during_ms = p99(during)
        figures.p99_after_ms = p99([ms for at, ms in took.values() if at > end])


def read_source(broker: str, source: str) -> dict[int, list[Record]]:
    """Return the records of a source topic, by partition."""
    logs: dict[int, list[Record]] = {number: [] for number in range(PARTITIONS)}
    for message in read_topic(broker, source):
        logs[message.partition()].append(
            Record(
                message.offset(),
                message.timestamp()[1],
                int(dict(message.headers())["sent-ms"]),
                message.value(),
                message.key() or b"",
                message.partition(),
            )
        )
    return logs


def p99(values: Sequence[float]) -> float | None:
    """Return the 99th percentile, None of nothing."""
    ordered = sorted(values)
    return float(ordered[(len(ordered) - 1) * 99 // 100]) if ordered else None
