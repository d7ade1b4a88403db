"""The newest figures, put into docs/performance.md: `python -m benchmarks.report`.

What stands between `<!-- figures: PART -->` and `<!-- end -->` is replaced by the part's table, and
the plots in docs/images are drawn anew; the text around stays as it was written.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.evenness import Evenness
from benchmarks.figures import Figure, notes, table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOTHING = "Not measured yet: `make bench`.\n"


class Part(msgspec.Struct, frozen=True):
    """One part's figures, the command and commit they are of, and how the machine was before."""

    took_s: float
    figures: tuple[Figure, ...]
    command: str = ""
    commit: str = ""
    machine_before: Evenness | None = None


class Report(msgspec.Struct, frozen=True):
    """What one day's run of the benchmarks left."""

    date: str
    machine: dict[str, str | int]
    versions: dict[str, str]
    parts: dict[str, Part]


def newest(folder: Path = RESULTS) -> Report | None:
    """Return the newest results of each part, None where there are none."""
    days = [
        msgspec.json.decode(file.read_bytes(), type=Report)
        for file in sorted(folder.glob("*.json"))
    ]
    if not days:
        return None
    parts = {name: part for day in days for name, part in day.parts.items()}
    return msgspec.structs.replace(days[-1], parts=parts)


def markdown(figures: tuple[Figure, ...]) -> str:
    """A table as Markdown: a row for each case; below it the notes."""
    head, *rows = table(figures)
    rule = ["--:"] * len(head)
    lines = [f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows)]
    remarks = [f"- {' '.join(note.split())}\n" for note in notes(figures)]
    return "".join([*lines, *(["\n", *remarks] if remarks else [])])


def filled(page: str, report: Report | None) -> str:
    """Return the page with the tables of a report in their places."""

    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return f"{begin}{_content(name, report)}{end}"

    return _BLOCK.sub(block, page)


def _content(name: str, report: Report | None) -> str:
    if report is None:
        return NOTHING
    if name == "machine":
        return _machine(report)
    part = report.parts.get(name)
    if part is None:
        return NOTHING
    source = f"`{part.command}`, commit `{part.commit}`, {part.took_s:,.0f} s."
    if part.machine_before is not None:
        source += f" Before it, {part.machine_before}."
    # A curve is read in its plot; its table would be long.
    shown = "" if name == "growth" else f"{markdown(part.figures)}\n"
    return f"{shown}{source}\n"


def _machine(report: Report) -> str:
    of, versions = report.machine, report.versions
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{report.date}: {of['processor']}, {of['cores']} cores, {of['memory_gib']} GiB, "
        f"{of['system']}. {named}.\n"
    )


def by_case(part: Part, **case: object) -> Mapping[str, float]:
    """The values, by name, of the figures of one case."""
    return {
        figure.name: figure.value for figure in part.figures if figure.case.items() >= case.items()
    }


def main() -> int:
    """Fill the page and draw the plots."""
    report = newest()
    PAGE.write_text(filled(PAGE.read_text(), report))
    if report is not None:
        from benchmarks import plots  # Late: matplotlib is in the `bench` extra alone.

        drawn: list[Any] = plots.draw(report, IMAGES)
        print(f"{PAGE.relative_to(ROOT)} and {len(drawn)} plots say what was found {report.date}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
