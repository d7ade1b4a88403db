"""What `--help` shows of a group of commands: plain text.

To draw it in boxes, rich would be imported, which takes longer than all the rest of a start.
"""

from typing import Any

import typer
from typer.core import TyperGroup

_WHOLE = 1_000


class Commands(TyperGroup):
    """A group whose help gives each command's whole first sentence, wrapped instead of cut off."""

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the commands with their sentences."""
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(_WHOLE))
            for name, command in named
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def group(help_text: str, **options: Any) -> typer.Typer:
    """Return a group of commands, which says what there is when it is asked for nothing."""
    return typer.Typer(
        help=help_text, cls=Commands, no_args_is_help=True, rich_markup_mode=None, **options
    )
