"""`train`: replay past events through a topology's kernel, and train its models on the result."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_infer.cli.options import Json, ModelsDir, TopologyName, settings_of, topology_of
from stream_infer.cli.output import emit_json

if TYPE_CHECKING:
    from stream_infer.core.topology import Topology
    from stream_infer.demo.progress import Report
    from stream_infer.training.fit import TrainingTable


def train(
    topology: TopologyName,
    events: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            help="One JSON event a line, in the order of the log; of several streams, "
            "STREAM=FILE for each.",
        ),
    ],
    until: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Train on events before this moment (UTC).",
        ),
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="A feature that is added to each model's score: the models learn the difference.",
            show_default=False,
        ),
    ] = None,
    models_dir: ModelsDir = None,
    json: Json = False,
) -> None:
    """Train a topology's models on files of past events, and store them as new versions."""
    import msgspec

    from stream_infer.demo.progress import progress
    from stream_infer.models.repository import ModelRepository
    from stream_infer.training.fit import train as fit

    settings = settings_of(models_dir=models_dir)
    declared = topology_of(topology)
    files = files_of(declared, events)
    cutoff_us = round(until.replace(tzinfo=UTC).timestamp() * 1_000_000)
    with progress() as report:
        table = table_of(declared, files, cutoff_us, settings.partitions, report)
        summary = fit(
            table,
            cutoff_us,
            ModelRepository(Path(settings.models_dir)),
            declared.name,
            baseline=baseline,
            seed=seed,
            progress=report,
        )
    if json:
        emit_json(msgspec.to_builtins(summary))
        return
    for name, error in summary.rmse.items():
        weight, version = summary.weights[name], summary.versions[name]
        print(f"{name}: version {version}, RMSE {error:.4g} in validation, weight {weight:.3f}")
    print(f"ensemble: RMSE {summary.rmse_ensemble:.4g}, on {summary.rows_validated:,} events")


def files_of(topology: "Topology", events: list[str]) -> list[Path]:
    """Return the file of each of a topology's streams, in their order; raises BadParameter."""
    names = [stream.name for stream in topology.streams]
    one = len(names) == 1
    named = dict([(names[0], events[0])] if one else [t.split("=", 1) for t in events if "=" in t])
    if len(events) != len(names) or set(named) != set(names):
        wanted = "a FILE" if one else " and ".join(f"{name}=FILE" for name in names)
        raise typer.BadParameter(
            f"topology {topology.name!r} reads {' and '.join(names)}: give {wanted}, each once",
            param_hint="--events",
        )
    for name, path in named.items():
        if not Path(path).is_file():
            raise typer.BadParameter(f"there is no file {path!r} of {name}", param_hint="--events")
    return [Path(named[name]) for name in names]


def table_of(
    topology: "Topology", events: list[Path], cutoff_us: int, partitions: int, report: "Report"
) -> "TrainingTable":
    """Return the vectors and labels of the scored events in the streams' files, as a worker would
    see them.
    """
    from stream_infer.core.engine import Engine
    from stream_infer.store.feast_repo import load_plan
    from stream_infer.store.offline_features import OfflineFeatures
    from stream_infer.stream.partitioning import Partitioner
    from stream_infer.training.fit import TrainingTable
    from stream_infer.training.replay import Replay, read_lines

    plan, past = None, None
    if topology.feast is not None:
        repo = Path(topology.feast.repo)
        plan = load_plan(repo, topology.feast.service)
        past = OfflineFeatures(plan, repo, until=datetime.fromtimestamp(cutoff_us / 1e6, UTC))
    engine = Engine(topology, plan.layout() if plan is not None else None)
    choose, places = Partitioner(), range(partitions)
    replay = Replay(engine, past, lambda key: choose.partition(key, places))
    bytes_total, bytes_done = max(sum(path.stat().st_size for path in events), 1), 0

    def lines(path: Path, key_field: str) -> Iterator[tuple[str, bytes]]:
        nonlocal bytes_done
        for key, line in read_lines(str(path), key_field):
            bytes_done += len(line) + 1
            yield key, line

    def done(_: int) -> None:
        report("replaying the events", bytes_done / bytes_total)

    sources = [
        lines(path, stream.key) for path, stream in zip(events, topology.streams, strict=True)
    ]
    rows = replay.run(sources[0], done) if len(sources) == 1 else replay.run_streams(sources, done)
    return TrainingTable(rows.names, rows.values, rows.labels, rows.times_us)
