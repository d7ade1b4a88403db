"""The demo, from nothing to its summary."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from stream_infer.core.errors import SettingsError
from stream_infer.demo import servers, table
from stream_infer.demo.children import ChildEndedError, Children
from stream_infer.demo.flights import LIVE_FROM, TOPOLOGY
from stream_infer.demo.live import EMBEDDED_FETCH_WAIT_MS, Ended, Run, new_board, run_live
from stream_infer.demo.measures import Recent
from stream_infer.demo.options import Options
from stream_infer.demo.player import Pace
from stream_infer.demo.prepared import Prepared
from stream_infer.demo.progress import progress
from stream_infer.demo.setup import prepare_data, prepare_features, prepare_models
from stream_infer.demo.summary import summary_of
from stream_infer.demo.table import View
from stream_infer.settings import Settings, load
from stream_infer.store.embedded import EmbeddedRedis
from stream_infer.stream.broker import BrokerProcess

SPEED_DEFAULT = 3_600.0
RECENT_S = 10.0
DRAIN_S = 5.0
"""Longest drain of the worker: when the demo itself is killed, its broker goes at the same time."""
LINE_EVERY_S = 5.0


class Demo:
    """One run: what it has started, to be stopped in order by `close`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started_s = time.perf_counter()
        self._stack = contextlib.ExitStack()
        self.exit_codes: dict[str, int] = {}
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        """Set everything up, run it, and return the summary."""
        options = self.options
        pace = _pace(options)
        settings = load(
            broker=options.broker,
            redis=options.redis,
            data_dir=options.data_dir,
            http_port=options.port,
        )
        data_dir = servers.data_folder(settings.data_dir).resolve()
        with progress() as report:
            made = prepare_data(data_dir, report)
            # By the models and the embedded servers, settings of one's own do not come into it.
            settings = msgspec.structs.replace(
                settings,
                models_dir=str(made.models_dir),
                redis=self._redis(data_dir),
                http_port=servers.http_port(options.port),
                drain_timeout_s=DRAIN_S,
            )
            prepare_features(made, settings.redis, report)
            prepare_models(made, report)
            report("starting the broker, the worker and the server", 0.5)
            settings, partitions = self._broker(made, settings)
            run = self._start(made, settings, partitions, pace)
        ended, view = self._live(run)
        summary = summary_of(run, ended, made.seconds, self.started_s, self._servers_text())
        self.close()
        return summary | {"exit_codes": self.exit_codes, "notes": view.notes}

    def close(self) -> None:
        """Stop what was started: worker, server, broker, Redis."""
        self._stack.close()

    def _redis(self, data_dir: Path) -> str:
        if self.options.redis is not None:
            return self.options.redis
        embedded = EmbeddedRedis(data_dir / "redis")
        self._stack.enter_context(embedded)
        return embedded.url

    def _broker(self, made: Prepared, settings: Settings) -> tuple[Settings, int]:
        """Start or reach the broker, and make sure that Redis' state is of its log."""
        options, stream = self.options, made.topology.stream.name
        if options.broker is None:
            topics = dict.fromkeys(servers.topics_of(made.topology), settings.partitions)
            broker = self._stack.enter_context(BrokerProcess(topics))
            settings = msgspec.structs.replace(
                settings, broker=broker.bootstrap, fetch_max_wait_ms=EMBEDDED_FETCH_WAIT_MS
            )
            log, counts, ends = servers.new_log(), topics, dict[int, int]()
            self.notes.append("the embedded broker keeps nothing: each start sends a new log")
        else:
            log, counts, ends = asyncio.run(servers.real_log(made.topology, settings))
        servers.fit_state_to_log(
            settings.redis,
            made.topology.name,
            log,
            ends,
            may_delete=options.redis is None or options.reset_state,
        )
        return settings, counts[stream]

    def _start(self, made: Prepared, settings: Settings, partitions: int, pace: Pace) -> Run:
        """Start server and worker."""
        options = self.options
        children = Children(made.data_dir / "logs")
        self._stack.callback(lambda: self.exit_codes.update(children.stop()))
        ports = servers.free_ports(options.processes)
        worker = msgspec.structs.replace(settings, metrics_port=ports[0])
        processes = ["--processes", str(options.processes)] if options.processes > 1 else []
        children.start("server", ["serve", TOPOLOGY], settings)
        children.start("worker", ["worker", TOPOLOGY, *processes], worker)
        return Run(
            made=made,
            settings=settings,
            children=children,
            metrics_ports=ports,
            partitions=partitions,
            embedded=options.broker is None,
            pace=pace,
            duration_s=options.duration_s,
            stay=options.duration_s is None and not options.json,
            log_from=LIVE_FROM - timedelta(days=options.warm_up_days),
        )

    def _live(self, run: Run) -> tuple[Ended, View]:
        board = new_board(run.made)
        recent = Recent(RECENT_S)
        recent.mark(time.perf_counter(), 0, board.latencies.counts())
        url = f"http://127.0.0.1:{run.settings.http_port}/"
        view = View(board, recent, f"stream-infer: {TOPOLOGY}", url, self.notes)
        with _shown(view, as_json=self.options.json) as show:
            return asyncio.run(run_live(run, view, show)), view

    def _servers_text(self) -> dict[str, str]:
        return {
            "broker": self.options.broker or "embedded (keeps nothing)",
            "redis": "given" if self.options.redis else "embedded (append-only file)",
        }


def run_demo(options: Options) -> int:
    """Run the demo; return its exit code: 0 at its end and after Ctrl-C, 1 where it failed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    demo = Demo(options)
    summary: dict[str, Any] = {"interrupted": True}
    code = 0
    try:
        summary = demo.run()
        code = 0 if summary["ok"] else 1
    except KeyboardInterrupt:
        print("stopped before the first event", file=sys.stderr)
    except ChildEndedError as error:
        summary, code = {"error": str(error)}, 1
        print(f"stream-infer: {error}", file=sys.stderr)
    finally:
        # From here on a second Ctrl-C must not leave anything running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        demo.close()
    if options.json:
        sys.stdout.buffer.write(msgspec.json.encode(summary) + b"\n")
        sys.stdout.buffer.flush()
    elif "ends" in summary:
        _print_end(summary)
    return code


def _pace(options: Options) -> Pace:
    if options.rate is not None and options.speed is not None:
        raise SettingsError("choose --speed or --rate, not both")
    if options.rate is not None:
        return Pace(rate=options.rate)
    return Pace(speed=options.speed or SPEED_DEFAULT)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _shown(view: View, *, as_json: bool) -> Iterator[Callable[[], None]]:
    """A function that shows the view: a live table on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=as_json)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            yield lambda: live.update(table.render(view), refresh=True)
        return
    last = [float("-inf")]

    def line() -> None:
        now_s = time.monotonic()
        if now_s - last[0] >= LINE_EVERY_S:
            last[0] = now_s
            print(table.line(view), file=sys.stderr, flush=True)

    yield line


def _print_end(summary: dict[str, Any]) -> None:
    ends = summary["ends"]
    parts = ", ".join(
        f"{ends[name]:,} {name.replace('_', ' ')}"
        for name in ("predictions", "updates", "dead_letters", "late", "duplicates")
    )
    kept = "every event has one end" if ends["conserved"] else "EVENTS ARE UNACCOUNTED FOR"
    print(f"consumed {ends['consumed']:,} = {parts}")
    print(f"{kept}; everything is stopped ({summary['data_dir']} keeps what was prepared)")
