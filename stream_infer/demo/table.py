"""What a person sees of a run: a table that lives, or a line every few seconds."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stream_infer.demo.board import Board
from stream_infer.demo.measures import Recent


@dataclass(slots=True)
class View:
    """The state of a run as it is shown."""

    board: Board
    recent: Recent
    title: str
    url: str
    notes: list[str]
    counts: Counter[str] | None = None
    http_ready: bool = False
    phase: str = ""

    @property
    def moment(self) -> str:
        """Event time reached."""
        if not self.board.event_time_us:
            return "-"
        return f"{datetime.fromtimestamp(self.board.event_time_us / 1e6, UTC):%d %B %Y, %H:%M} UTC"

    def latency(self, percent: float) -> str:
        """A percentile of the last seconds."""
        found = self.board.latencies.percentile_ms(percent, self.recent.since)
        return "-" if found is None else f"{found:.1f}"


def line(view: View) -> str:
    """Return the state in one line."""
    board, counts = view.board, view.counts or Counter()
    rmse = board.errors.rmse()
    return (
        f"{view.phase}: {view.moment}; {view.recent.rate():,.0f} events/s; "
        f"p50/p99 {view.latency(50)}/{view.latency(99)} ms; lag {counts['lag']:,}; "
        f"{board.predictions:,} predictions; RMSE {minutes(rmse['model'])} "
        f"(schedule {minutes(rmse['schedule'])}, "
        f"departure + gain {minutes(rmse['departure_plus_gain'])})"
    )


def minutes(value: float | int | None) -> str:
    """Return an error in minutes as text."""
    return "-" if value is None else f"{value:.2f}"


def render(view: View) -> Any:
    """Return the state as rich's renderable."""
    # Late: rich is for people only, and `stream-infer --help` must come at once.
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    board, counts = view.board, view.counts
    rmse = board.errors.rmse()
    left = Table.grid(padding=(0, 2))
    right = Table.grid(padding=(0, 2))
    for grid in (left, right):
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)

    def count(name: str) -> str:
        return "-" if counts is None else f"{counts[name]:,}"

    left.add_row("events/s", f"{view.recent.rate():,.0f}")
    left.add_row("event → prediction p50", f"{view.latency(50)} ms")
    left.add_row("event → prediction p99", f"{view.latency(99)} ms")
    left.add_row("lag", f"{count('lag')} events")
    left.add_row("", "")
    left.add_row("RMSE, minutes", f"{board.errors.labelled:,} landed")
    left.add_row("  this ensemble", f"[bold green]{minutes(rmse['model'])}[/]")
    left.add_row("  departure delay + mean gain", minutes(rmse["departure_plus_gain"]))
    left.add_row("  schedule", minutes(rmse["schedule"]))
    right.add_row("events sent", f"{board.sent:,}")
    right.add_row("consumed", count("consumed"))
    right.add_row("  predictions", count("predictions"))
    right.add_row("  updates", count("updates"))
    right.add_row("  dead letters", count("dead_letters"))
    right.add_row("  late", count("late"))
    right.add_row("  duplicates", count("duplicates"))
    right.add_row("predictions read back", f"{board.predictions:,}")
    right.add_row("outcomes", f"{board.outcomes:,}")
    columns = Table.grid(padding=(0, 4))
    columns.add_row(left, right)
    state = "" if view.http_ready else "  [dim](starting)[/]"
    foot = Table.grid(padding=(0, 2))
    foot.add_column(style="bold", no_wrap=True)
    foot.add_column(overflow="fold")
    foot.add_row("page", f"[link={view.url}]{view.url}[/]{state}")
    foot.add_row("API", f"{view.url}docs")
    for note in view.notes:
        foot.add_row("note", f"[dim]{note}[/]")
    body = Group(f"[bold]{view.moment}[/]  {view.phase}", "", columns, "", foot)
    return Panel(body, title=view.title, subtitle="Ctrl-C stops all of it", padding=(1, 2))
