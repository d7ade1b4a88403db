"""`check`: everything that can be wrong with a topology, found before anything connects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from stream_infer.cli.options import Json, ModelsDir, TopologyName, settings_of, topology_of
from stream_infer.cli.output import FAILED, emit_json, say


def check(topology: TopologyName, models_dir: ModelsDir = None, json: Json = False) -> None:
    """Find everything that can be wrong with a topology, before anything connects.

    Its declaration, its feature service, its models (present, undamaged, fitting its vector) and
    their weights. Exit code 1 if anything is.
    """
    settings = settings_of(models_dir=models_dir)
    report = examine(topology, Path(settings.models_dir))
    if json:
        emit_json(report)
    else:
        _show(report)
    for problem in report["problems"]:
        say(f"{topology}: {problem}")
    if not report["ok"]:
        raise typer.Exit(FAILED)


def examine(name: str, models_dir: Path) -> dict[str, Any]:
    """Return what a topology consists of, with all `problems` found; `ok` when there are none."""
    from stream_infer.core.errors import StreamInferError

    problems: list[str] = []
    report: dict[str, Any] = {"topology": name, "ok": False, "problems": problems}

    def attempt(part: Callable[[], dict[str, Any]]) -> bool:
        try:
            report.update(part())
        except StreamInferError as error:
            problems.append(" ".join(str(error).split()))
            return False
        return True

    found: list[Any] = []
    if not attempt(lambda: _declaration(found, name)):
        return report
    topology = found[0]
    if attempt(lambda: _vector(found, topology)):
        attempt(lambda: _models(models_dir, topology, found[1]))
    report["ok"] = not problems
    return report


def _declaration(found: list[Any], name: str) -> dict[str, Any]:
    topology = topology_of(name)
    found.append(topology)
    streams = [
        {
            "topic": stream.name,
            "key": stream.key,
            "time": stream.time,
            "events": [event_type.__name__ for event_type in stream.event_types],
        }
        for stream in topology.streams
    ]
    return {
        "topology": topology.name,
        "stream": streams[topology.sources.index(topology.stream.name)],
        "streams": streams,
        "on": topology.on.__name__,
        "key": topology.key,
        "output": topology.output,
        "outcomes": topology.outcomes if topology.label else None,
        "dead_letters": topology.dead_letters,
        "views": [
            {
                "name": view.name,
                "by": list(view.by),
                "features": list(view.features),
                "row_bytes": view.plan.row_dtype.itemsize,
                "rekey": view.rekey,
            }
            for view in topology.streaming
        ],
        "rekeyed": topology.rekeyed_events if topology.rekeyed else None,
    }


def _vector(found: list[Any], topology: Any) -> dict[str, Any]:
    from stream_infer.core.engine import Engine
    from stream_infer.store.feast_repo import load_plan

    plan = load_plan(Path(topology.feast.repo), topology.feast.service) if topology.feast else None
    engine = Engine(topology, plan.layout() if plan is not None else None)
    found.append(engine.vector_names)
    return {
        "feature_service": topology.feast.service if topology.feast else None,
        "batch_features": list(plan.names) if plan is not None else [],
        "vector": list(engine.vector_names),
        "vector_width": len(engine.vector_names),
    }


def _models(models_dir: Path, topology: Any, names: tuple[str, ...]) -> dict[str, Any]:
    from stream_infer.models.loading import load_ensemble

    loaded = load_ensemble(models_dir, topology, names)
    weights = dict(zip(loaded.combiner.models, loaded.combiner.weights or (), strict=True))
    return {
        "models": [
            {"name": model, "version": version, "weight": weights.get(model)}
            for model, version in loaded.versions.items()
        ]
    }


def _show(report: dict[str, Any]) -> None:
    # Late: rich takes a while, and only a person wants tables.
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows: list[tuple[str, str]] = [("topology", report["topology"])]
    for stream in report.get("streams", []):
        events = ", ".join(stream["events"])
        rows.append(("reads", f"topic {stream['topic']} by {stream['key']}: {events}"))
    if "on" in report:
        rows.append(("scores", f"{report['on']}, looked up by {report['key']}"))
        written = [report["output"], report["outcomes"], report["dead_letters"], report["rekeyed"]]
        rows.append(("writes", ", ".join(topic for topic in written if topic)))
    for view in report.get("views", []):
        by, size = ", ".join(view["by"]), view["row_bytes"]
        text = f"{len(view['features'])} features by {by}; {size:,} B a row"
        if view["rekey"]:
            text += f"; rekeyed through topic {report['rekeyed']}"
        rows.append((f"view {view['name']}", text))
    if service := report.get("feature_service"):
        rows.append(("feature service", f"{service}: {len(report['batch_features'])} features"))
    if width := report.get("vector_width"):
        rows.append(("vector", f"{width} inputs"))
    for model in report.get("models", []):
        rows.append(
            (f"model {model['name']}", f"version {model['version']}, weight {model['weight']:.3f}")
        )
    rows.append(("result", "[green]all well[/]" if report["ok"] else "[red]problems[/]"))
    for row in rows:
        table.add_row(*row)
    Console().print(table)
