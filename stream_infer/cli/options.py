"""Options that several commands share, and the settings that they make."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stream_infer.core.topology import Topology
    from stream_infer.settings import Settings

TopologyName = Annotated[
    str,
    typer.Argument(
        metavar="TOPOLOGY",
        help="A module of `topologies/`, any module, or a file; `:NAME` picks one of several.",
        show_default=False,
    ),
]
Broker = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Kafka's address.", show_default=False),
]
RedisUrl = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="Redis' address.", show_default=False),
]
ModelsDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder of the model repository.", show_default=False),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]


def settings_of(**overrides: Any) -> "Settings":
    """Return the settings from environment and file, with options given on the command line."""
    from stream_infer.settings import load

    return load(**overrides)


def topology_of(name: str) -> "Topology":
    """Return the topology that a name on the command line stands for.

    Raises DeclarationError, with the line at fault, for a module that cannot be imported.
    """
    import traceback

    from stream_infer.core.errors import DeclarationError, StreamInferError
    from stream_infer.loading import load_topology

    try:
        return load_topology(name)
    except StreamInferError:
        raise
    except Exception as error:
        # The module is the user's code: whatever it raises, name its place rather than ours.
        at = traceback.extract_tb(error.__traceback__)[-1]
        if isinstance(error, SyntaxError):
            place = f"{error.filename}, line {error.lineno}"
        else:
            place = f"{at.filename}, line {at.lineno}"
        raise DeclarationError(
            f"topology {name!r}", f"{type(error).__name__}: {error} ({place})"
        ) from error
