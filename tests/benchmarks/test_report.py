"""Figures become tables and plots; the text around them stays."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import evenness
from benchmarks.evenness import Evenness
from benchmarks.figures import Case, figure, over_runs, shown, table
from benchmarks.report import NOTHING, PAGE, Part, Report, filled, newest

FEW: Case = {"keys": 5_000, "draw": "zipf"}
MANY: Case = {"keys": 1_000_000, "draw": "zipf"}
FIGURES = (
    figure("throughput", [30_000.0, 10_000.0, 20_000.0], "events/s", FEW),
    figure("CPU", 9.5, "µs/event", FEW),
    figure("throughput", 5_000.0, "events/s", MANY),
)
REPORT = Report(
    date="2026-01-02",
    machine={"processor": "P", "cores": 2, "memory_gib": 8, "system": "Linux 6"},
    versions={"python": "3.11"},
    parts={
        "worker": Part(
            took_s=3.0,
            figures=FIGURES,
            command="C",
            commit="abc",
            machine_before=Evenness(p50_us=312.4, p99_us=2_040.0),
        )
    },
)


def test_a_figure_is_the_median_of_its_runs() -> None:
    assert FIGURES[0].value == 20_000
    assert FIGURES[0].runs == (30_000, 10_000, 20_000)
    both = over_runs([{"a": (1.0, "s")}, {"a": (3.0, "s")}], {"x": 1})
    assert [(item.name, item.value, item.unit) for item in both] == [("a", 2.0, "s")]


def test_a_table_has_a_row_for_each_case_and_marks_what_is_missing() -> None:
    assert table(FIGURES) == [
        ["keys", "draw", "throughput (events/s)", "CPU (µs/event)"],
        ["5,000", "zipf", "20,000", "9.5"],
        ["1,000,000", "zipf", "5,000", "–"],
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (12.34, "12.3"), (123.4, "123"), (12_345.6, "12,346")]
)
def test_numbers_have_the_digits_worth_reading(value: float, text: str) -> None:
    assert shown(value) == text


def test_tables_are_put_in_their_places_again_and_again() -> None:
    places = [f"<!-- figures: {name} -->\nold\n<!-- end -->\n" for name in ("worker", "http")]
    once = filled("before\n{}after\n{}".format(*places), REPORT)
    assert once.startswith("before\n<!-- figures: worker -->\n| keys | draw |")
    assert "| 5,000 | zipf | 20,000 | 9.5 |\n" in once
    assert "old" not in once
    assert "3 s. Before it, a fixed piece of work took 312 µs, p99 2,040.\n" in once
    assert "\nafter\n" in once
    assert once.count(NOTHING) == 1
    assert filled(once, REPORT) == once


def test_the_machine_is_looked_at_for_as_long_as_said() -> None:
    found = evenness.measure(seconds=0.05)
    assert 0 < found.p50_us <= found.p99_us


def test_the_page_has_a_place_for_every_part() -> None:
    page = PAGE.read_text()
    for name in (*program.PARTS, "machine"):
        assert page.count(f"<!-- figures: {name} -->") == 1, name
    assert page.count("<!-- end -->") == len(program.PARTS) + 1


def test_a_part_measured_again_replaces_itself_alone(tmp_path: Path) -> None:
    report = json.loads(json.dumps({"date": "2026-01-02", "parts": {"a": {"took_s": 1}}}))
    program.write(report, tmp_path)
    path = program.write(report | {"parts": {"b": {"took_s": 2}}}, tmp_path)
    assert json.loads(path.read_text())["parts"] == {"a": {"took_s": 1}, "b": {"took_s": 2}}


def test_the_newest_results_are_reported(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    days = {"2026-01-02": {"a": 1.0, "b": 2.0}, "2026-01-10": {"b": 3.0, "c": 4.0}}
    for date, took_s in days.items():
        parts = {name: {"took_s": each, "figures": []} for name, each in took_s.items()}
        content = {"date": date, "machine": {}, "versions": {}, "parts": parts, "failed": {}}
        (tmp_path / f"{date}.json").write_text(json.dumps(content))
    found = newest(tmp_path)
    assert found is not None
    assert found.date == "2026-01-10"
    assert {name: part.took_s for name, part in found.parts.items()} == {"a": 1, "b": 3, "c": 4}


def test_plots_are_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="comes with the bench extra")
    from benchmarks import plots

    (first,) = plots.draw(REPORT, tmp_path / "a")
    (second,) = plots.draw(REPORT, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert "5,000 keys, zipf" in first.read_text()
