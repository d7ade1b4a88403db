"""`demo` and `evaluate`: the flight example, to look at and to judge."""

from datetime import datetime
from typing import Annotated

import typer

from stream_infer.cli.options import Broker, RedisUrl

DataDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder of what is prepared once [default: .demo]."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")
]


def demo(
    speed: Annotated[
        float | None,
        typer.Option(min=1.0, help="Seconds of flights a second.  [default: 3600]"),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Events a second, instead of a speed.")
    ] = None,
    broker: Broker = None,
    redis: RedisUrl = None,
    duration_s: Annotated[
        float | None, typer.Option(min=0.0, help="End after so many seconds of live flights.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page; a free one where it is taken.")] = (
        8080
    ),
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    warm_up_days: Annotated[
        int,
        typer.Option(
            min=0,
            max=30,
            help="Days before October that fill the features; fewer start sooner, on less.",
        ),
    ] = 30,
    data_dir: DataDir = None,
    reset_state: Annotated[
        bool,
        typer.Option(
            "--reset-state", help="Delete this topology's rows in a Redis given by --redis."
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Predict the delays of real flights, live: sets everything up, then shows it at work.

    Broker and Redis are embedded ones unless given. September 2013 warms the features up at full
    speed; the flights of October and later come at the chosen speed. Ctrl-C stops all of it.
    """
    from stream_infer.cli.output import keep_libraries_quiet
    from stream_infer.demo.options import Options
    from stream_infer.demo.run import run_demo

    keep_libraries_quiet()
    options = Options(
        speed=speed,
        rate=rate,
        broker=broker,
        redis=redis,
        duration_s=duration_s,
        json=json,
        port=port,
        data_dir=data_dir,
        processes=processes,
        reset_state=reset_state,
        warm_up_days=warm_up_days,
    )
    raise typer.Exit(run_demo(options))


def evaluate(
    broker: Broker = None,
    redis: RedisUrl = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Judge the flights before this day only; the bound of the error is left out then.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    json: AsJson = True,
) -> None:
    """Replay all flights of October to December through a real Kafka, and judge the predictions.

    Without --broker it starts the tests' Kafka (Java 17 or newer). Prints one JSON object; exit
    code 1 where one of the laws does not hold.
    """
    from datetime import UTC

    from stream_infer.cli.output import keep_libraries_quiet
    from stream_infer.demo.evaluate import run_evaluation

    keep_libraries_quiet()
    end = None if until is None else until.replace(tzinfo=UTC)
    raise typer.Exit(run_evaluation(broker, redis, data_dir, end))
