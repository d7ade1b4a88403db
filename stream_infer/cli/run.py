"""`worker` and `serve`: the two long-running programs."""

from pathlib import Path
from typing import Annotated

import typer

from stream_infer.cli.options import Broker, ModelsDir, RedisUrl, settings_of, topology_of
from stream_infer.cli.output import log_to_stderr
from stream_infer.cli.starting import end_at_once_when_told

MetricsPort = Annotated[
    int | None,
    typer.Option(
        metavar="PORT",
        help="Port of /metrics and health; process n of several takes PORT + n.",
        show_default=False,
    ),
]


def worker(
    topologies: Annotated[
        list[str],
        typer.Argument(metavar="TOPOLOGY...", help="What to run.", show_default=False),
    ],
    processes: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Worker processes of one group.")
    ] = 1,
    broker: Broker = None,
    redis: RedisUrl = None,
    models_dir: ModelsDir = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run topologies: consume their streams and publish predictions, until SIGTERM or Ctrl-C."""
    end_at_once_when_told()
    settings = settings_of(
        broker=broker, redis=redis, models_dir=models_dir, metrics_port=metrics_port
    )
    declared = [topology_of(name) for name in topologies]
    if processes > 1:
        from stream_infer.cli.supervisor import supervise

        raise typer.Exit(supervise(topologies, settings, processes))
    from stream_infer.models.calling import exit_code
    from stream_infer.stream.service import run
    from stream_infer.stream.worker import set_up_logging

    set_up_logging()
    raise typer.Exit(exit_code(run(declared, settings)))


def serve(
    topologies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPOLOGY]...", help="What to serve; default: all that topologies/ declares."
        ),
    ] = None,
    broker: Broker = None,
    redis: RedisUrl = None,
    models_dir: ModelsDir = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0: a free one.", show_default=False)
    ] = None,
) -> None:
    """Serve topologies over HTTP: score, look up, follow and explain predictions."""
    end_at_once_when_told()
    settings = settings_of(
        broker=broker, redis=redis, models_dir=models_dir, http_host=host, http_port=port
    )
    names = topologies or declared_topologies()
    for name in names:
        topology_of(name)
    from stream_infer.models.calling import exit_code
    from stream_infer.serving.server import serve as serve_until_stopped

    log_to_stderr()
    raise typer.Exit(exit_code(serve_until_stopped(names, settings)))


def declared_topologies() -> list[str]:
    """Return the names of the modules in `topologies/` that declare a topology.

    Raises DeclarationError where there is none.
    """
    from stream_infer.core.errors import DeclarationError
    from stream_infer.loading import FOLDER

    # A module beside the topologies, such as one that prepares their data, is passed over by its
    # text, not imported: that could take long, or need what is not installed.
    names = [
        path.stem
        for path in sorted(Path(FOLDER).glob("[!_]*.py"))
        if "Topology(" in path.read_text(encoding="utf-8")
    ]
    if not names:
        raise DeclarationError("serve", f"{FOLDER}/ declares no topology here; name one")
    return names
