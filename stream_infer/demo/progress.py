"""Progress of work that takes more than a second, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, float], None]


@contextmanager
def progress() -> Iterator[Report]:
    """A function to call with what is being done and the part of it that is done, 0 to 1.

    On a terminal it draws a bar; elsewhere each new thing gets a line.
    """
    # Late: rich takes a while to import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        seen: set[str] = set()

        def line(stage: str, part: float) -> None:
            if stage not in seen:
                seen.add(stage)
                console.print(stage, highlight=False)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0)
        current = ""

        def bar(stage: str, part: float) -> None:
            nonlocal current
            if stage != current:
                # Anew, so that the time shown is this stage's.
                current = stage
                bars.reset(task, description=stage)
            bars.update(task, completed=part)

        yield bar
