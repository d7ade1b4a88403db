"""The judge of two merged streams: folds both logs of each partition number, and compares."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tests.faults.fold import Expected, Folded, Record, differs, fold_log
from tests.faults.harness import Run
from tests.faults.merged import Sky, fold_sky, merge
from tests.faults.reading import PARTITIONS, read_topic, stored_rows
from tests.faults.reports import fold_reports
from tests.faults.rows import UNSTEADY, plain
from tests.faults.verifier import Figures, read_source

Said = Mapping[str, list[Any]]
"""By id, the contents of each publication."""


class Both:
    """What both logs come to, each record of either named as its results are."""

    def __init__(self, run: Run, reports_topic: str) -> None:
        self.topics = run.source, reports_topic
        self.logs = [read_source(run.broker, topic) for topic in self.topics]
        self.sales: dict[int, Folded] = {}
        self.reports: dict[int, Folded] = {}
        self.skies: dict[int, Sky] = {}
        self._topology = run.name
        for number in range(PARTITIONS):
            both = [log[number] for log in self.logs]
            self.sales[number] = fold_log(both[0])
            self.reports[number], counting = fold_reports(both[1])
            merged = merge(both, ("at", "seen_at"))
            self.skies[number] = fold_sky(merged, self.sales[number], counting)

    def name(self, topic: int, number: int, offset: int) -> str:
        """Return the id of what comes of a record."""
        return f"{self._topology}:{self.topics[topic]}:{number}:{offset}"

    def ended(self, end: str) -> set[str]:
        """Return the ids of all records that end so."""
        return {
            self.name(topic, number, offset)
            for topic, parts in enumerate((self.sales, self.reports))
            for number, part in parts.items()
            for offset in part.of(end)
        }

    def predictions(self) -> dict[str, dict[str, Expected]]:
        """Return all features of each prediction."""
        return {
            self.name(0, number, offset): features | self.skies[number].features[offset]
            for number, part in self.sales.items()
            for offset, features in part.features.items()
        }

    def outcomes(self) -> dict[str, tuple[str, float]]:
        """Return, by id, the prediction and the label of each outcome."""
        return {
            self.name(0, number, offset): (self.name(0, number, of_sale), label)
            for number, part in self.sales.items()
            for offset, (of_sale, label) in part.outcomes.items()
        }

    def originals(self) -> dict[str, Record]:
        """Return each record by its id."""
        return {
            self.name(topic, number, record.offset): record
            for topic, log in enumerate(self.logs)
            for number, records in log.items()
            for record in records
        }


def judge(run: Run, reports_topic: str, calm: str) -> Figures:
    """Fill in the figures of a run, beside what an undisturbed worker stored."""
    both, figures = Both(run, reports_topic), run.figures
    figures.sent = sum(len(records) for log in both.logs for records in log.values())
    figures.updates = len(both.ended("update"))
    figures.late = len(both.ended("late"))
    figures.duplicates = len(both.ended("duplicate"))
    figures.notes["ties"] = sum(sky.ties for sky in both.skies.values())
    figures.notes["behind"] = sum(sky.behind for sky in both.skies.values())
    judge_predictions(run, both, figures)
    judge_outcomes(run, both, figures)
    judge_dead_letters(run, both, figures)
    different = _as_calm(run, calm) | _headers(run, both)
    figures.state_differences = len(different)
    if different:
        figures.failures.append(f"rows differ: {sorted(different)[:5]}")
    return figures


def judge_predictions(run: Run, both: Both, figures: Figures) -> None:
    """Compare every prediction's features with those of the merged log."""
    found = _published(run, "predictions", "prediction_id")
    expected = both.predictions()
    _compare(figures, "predictions", set(expected), found)
    figures.predictions = len(found)
    for name, features in expected.items():
        for said in found.get(name, ())[:1]:
            if wrong := differs(said["scores"], features):
                figures.wrong += 1
                if figures.wrong <= 3:
                    figures.failures.append(f"{name} is wrong in {wrong}")


def judge_outcomes(run: Run, both: Both, figures: Figures) -> None:
    """Compare every outcome with the pair that makes it."""
    found = _published(run, "outcomes", "outcome_id")
    expected = both.outcomes()
    _compare(figures, "outcomes", set(expected), found)
    figures.outcomes = len(found)
    for name, pair in expected.items():
        for said in found.get(name, ())[:1]:
            if (said["prediction_id"], said["label"]) != pair:
                figures.wrong += 1
                figures.failures.append(f"outcome {name} pairs something else")


def judge_dead_letters(run: Run, both: Both, figures: Figures) -> None:
    """Compare the dead letters of both topics with what was refused."""
    found: dict[str, list[Any]] = defaultdict(list)
    originals = both.originals()
    for message in read_topic(run.broker, f"{run.name}.dead_letters"):
        headers = {name: value.decode() for name, value in message.headers()}
        place = headers["si-topic"], headers["si-partition"], headers["si-offset"]
        name = ":".join((run.name, *place))
        found[name].append((headers["si-reason"], message.value()))
        if not headers["si-reason"] or message.value() != originals[name].value:
            figures.failures.append(f"dead letter {name} has no reason or another body")
    _compare(figures, "dead letters", both.ended("dead letter"), found)
    figures.dead_letters = len(found)


def _published(run: Run, kind: str, identity: str) -> Said:
    """Return what was published, by id, less what a repeat may say differently."""
    found: dict[str, list[Any]] = defaultdict(list)
    for message in read_topic(run.broker, f"{run.name}.{kind}"):
        said = json.loads(message.value())
        said = {name: value for name, value in said.items() if name not in UNSTEADY}
        found[said[identity]].append(said)
    return found


def _compare(figures: Figures, what: str, expected: set[str], found: Said) -> None:
    """Count what is missing, extra, repeated, and repeated with another content."""
    conflicting = {name for name, said in found.items() if any(c != said[0] for c in said)}
    missing, extra = expected - found.keys(), found.keys() - expected
    figures.missing += len(missing)
    figures.extra += len(extra)
    figures.conflicting += len(conflicting)
    figures.repeats += sum(len(said) - 1 for said in found.values())
    for problem, names in (
        ("missing", missing),
        ("extra", extra),
        ("conflicting", conflicting),
    ):
        if names:
            figures.failures.append(f"{what} {problem}: {sorted(names)[:3]}")


def _as_calm(run: Run, calm: str) -> set[str]:
    """Compare all rows, byte by byte, with those of the undisturbed worker."""
    mine, theirs = (
        {key: plain(key, value, name) for key, value in stored_rows(run.store_url, name).items()}
        for name in (run.name, calm)
    )
    if not any(":sky:" in key for key in mine):
        return {"no rows of the second stream"}
    return {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}


def _headers(run: Run, both: Both) -> set[str]:
    """Compare position and clock of each topic, and the event ids, with the folded logs."""
    rows = stored_rows(run.store_url, run.name)
    different = set()
    for number in range(PARTITIONS):
        parts = both.sales[number], both.reports[number]
        meta = rows.get(f"{number}}}:meta", {})
        for name, values in (
            ("next_offset", [len(log[number]) for log in both.logs]),
            ("stream_time_us", [part.newest_us for part in parts]),
        ):
            if meta.get(name.encode(), b"").decode() != ",".join(map(str, values)):
                different.add(f"{number}}}:meta {name}")
        prefix = f"{number}}}:@ids:"
        stored = {
            key.removeprefix(prefix): int.from_bytes(row, "little", signed=True)
            for key, row in rows.items()
            if key.startswith(prefix)
        }
        ids = parts[0].seen_us
        different |= {prefix + name for name in ids if stored.get(name) != ids[name]}
        different |= {prefix + name for name in stored.keys() - ids.keys()}
    return different
