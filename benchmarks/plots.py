"""Plots of the figures, as SVG with readable text, the same bytes for the same figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter

from benchmarks.figures import shown
from benchmarks.report import Part, Report, by_case

STAGES = ("decode", "lookup", "fold", "assemble", "models", "results")
TARGETS_P99_MS = {500: 5.0, 2_000: 9.0, 10_000: 15.0, 30_000: 30.0}
_AXES = {
    "features": "features of a view",
    "models": "models (100 trees each)",
    "resolutions": "widths of tiles in a row",
    "keys": "keys (beyond 1,000,000 not all in memory)",
    "batch size": "events in a micro-batch",
}


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw what the report has figures for; return the files."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "stream-infer", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    plots = {"growth": growth, "latency": latency, "worker": worker}
    drawn = []
    for name, plot in plots.items():
        if name in report.parts:
            path = folder / f"performance-{name}.svg"
            canvas = plot(report.parts[name])
            canvas.savefig(path, metadata={"Date": None}, bbox_inches="tight")
            # matplotlib ends some lines with blanks.
            path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()))
            drawn.append(path)
    return drawn


def growth(part: Part) -> Canvas:
    """A curve for each thing that grows: microseconds an event, by stage."""
    canvas = Canvas(figsize=(10, 6.5), layout="constrained")
    places = canvas.subplots(2, 3)
    curves = list(dict.fromkeys(str(figure.case["curve"]) for figure in part.figures))
    for axes, curve in zip(places.flat, curves, strict=False):
        xs = _xs(part, "x", curve=curve)
        points = [by_case(part, curve=curve, x=x) for x in xs]
        for stage in ("all", *STAGES):
            values = [point.get(stage, float("nan")) for point in points]
            weight = 2.0 if stage == "all" else 1.0
            axes.plot(xs, values, marker="o", markersize=3, linewidth=weight, label=stage)
        _finish(axes, _AXES.get(curve, curve), "µs an event", xs)
    for axes in places.flat[len(curves) :]:
        axes.set_visible(False)
    places.flat[0].legend(fontsize=7)
    return canvas


def latency(part: Part) -> Canvas:
    """Percentiles by rate, beside the p99 that is aimed at."""
    canvas = Canvas(figsize=(6, 4), layout="constrained")
    axes = canvas.subplots()
    rates = _xs(part, "events/s")
    points = [by_case(part, **{"events/s": rate}) for rate in rates]
    for name in ("p50", "p99", "p99.9"):
        axes.plot(rates, [point[name] for point in points], marker="o", label=name)
    aims = [rate for rate in rates if rate in TARGETS_P99_MS]
    targets = [TARGETS_P99_MS[int(rate)] for rate in aims]
    axes.plot(aims, targets, "k_", markersize=12, label="p99 aimed at")
    _finish(axes, "events a second", "ms from due to readable", rates)
    axes.legend()
    return canvas


def worker(part: Part) -> Canvas:
    """Throughput of one worker in each case."""
    canvas = Canvas(figsize=(6, 3), layout="constrained")
    axes = canvas.subplots()
    found = [figure for figure in part.figures if figure.name == "throughput"]
    names = [f"{shown(figure.case['keys'])} keys, {figure.case['draw']}" for figure in found]
    bars = axes.barh(names, [figure.value for figure in found], color="#4477aa")
    axes.bar_label(bars, [shown(figure.value) for figure in found], padding=3)
    axes.set_xlabel("events a second, one worker process")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return canvas


def _xs(part: Part, name: str, **case: object) -> list[float]:
    found = {
        float(figure.case[name])
        for figure in part.figures
        if name in figure.case and figure.case.items() >= case.items()
    }
    return sorted(found)


def _finish(axes: Any, x: str, y: str, xs: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(xs, [shown(int(value)) for value in xs], rotation=45)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
