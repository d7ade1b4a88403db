"""A peer as a process: its command, its settings, and what all of its processes use."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from benchmarks.generator import account_name
from benchmarks.models import graphs
from benchmarks.peers.catalogue import FOLDER, Mode, Peer
from benchmarks.peers.environments import environment, is_java
from benchmarks.place import PARTITIONS, Place, vector_names
from benchmarks.processes import Process
from stream_infer.processes import Guarded, free_port
from stream_infer.store.feast_plan import ReadPlan
from stream_infer.store.feast_repo import connection_string
from stream_infer.store.feast_wire import entity_keys, feature_field
from tests.servers.jars import java

GRACE_S = 15.0


@contextlib.contextmanager
def running(
    place: Place,
    peer: Peer,
    mode: Mode,
    *,
    core: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Start a peer and wait until it is ready; end it and all of its processes afterwards.

    Raises BenchmarkError where it does not come up.
    """
    folder = place.folder / "peers" / f"{peer.key}-{free_port()}"
    folder.mkdir(parents=True)
    port = free_port()
    log = folder / "log.txt"
    home = environment(peer)
    chosen = {**_common(place, folder, port), **(settings or {}), **mode.settings}
    with log.open("wb") as output:
        process = Guarded(
            [*_pinned(core), *_command(peer, home, port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(peer, home, chosen),
            cwd=folder if is_java(peer) else peer.folder,
            grace_s=GRACE_S,
        )
    started = Process(process, log, port)
    try:
        started.until(peer.ready)
        yield started
    finally:
        family = _family(process.pid)
        process.stop()
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()


def cpu_s(pid: int) -> float:
    """Seconds of processor time of a process and of all below it."""
    return sum(_each(pid, lambda member: sum(member.cpu_times()[:2])))


def resident_bytes(pid: int) -> int:
    """Memory in RAM of a process and of all below it; what they share counts for each."""
    return int(sum(_each(pid, lambda member: member.memory_info().rss)))


def _command(peer: Peer, home: Path, port: int) -> list[str | Path]:
    """As each peer's documentation starts it."""
    python = home / "bin" / "python"
    at = ["--host", "127.0.0.1", "--port", str(port)]
    if is_java(peer):
        return [java(), "-Xmx1g", "-cp", f"{home}/peer.jar:{home}/lib/*", "peer.StandardJob"]
    commands: dict[str, list[str | Path]] = {
        "plain_faust": [python, "app.py", "worker", "--loglevel", "info"],
        "fastapi_feast": [python, "-m", "uvicorn", "app:app", "--no-access-log", *at],
        "bento": [python, "-m", "bentoml", "serve", "service:Scorer", *at],
        "ml_server": [home / "bin" / "mlserver", "start", "."],
    }
    return commands.get(peer.key, [python, "app.py"])


def _environment(peer: Peer, home: Path, chosen: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without our own packages; an empty setting is none."""
    port, folder = int(chosen["PORT"]), chosen["FOLDER"]
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {
        **others,
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(FOLDER / "common"),
        "PYTHONDONTWRITEBYTECODE": "1",
        # The three models need a thread each; libraries that spin on others disturb.
        "OMP_NUM_THREADS": "1",
        "BENTOML_HOME": folder,
        "BENTOML_DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        **{f"PEER_{name}": value for name, value in chosen.items() if value},
    }


def _common(place: Place, folder: Path, port: int) -> dict[str, str]:
    """What every peer is told: where things are."""
    plan = place.plan(0)
    shared = place.folder / "peers" / "shared"
    if not shared.is_dir():
        shared.mkdir()
        for name, content in graphs(vector_names(plan)).items():
            (shared / f"{name}.onnx").write_bytes(content)
        (shared / "feature_store.yaml").write_text(
            f"project: {plan.project}\nprovider: local\n"
            f"registry: {place.repo}/data/registry.db\n"
            "offline_store:\n  type: file\nonline_store:\n  type: redis\n"
            f"  connection_string: {connection_string(place.redis_url)}\n"
            "entity_key_serialization_version: 3\n"
        )
    return {
        "BROKER": place.kafka.bootstrap,
        "PARTITIONS": str(PARTITIONS),
        "FEAST": str(shared),
        "MODELS": str(shared),
        "REDIS": place.redis_url,
        "FOLDER": str(folder),
        "PORT": str(port),
        **_feast_layout(plan),
    }


def _feast_layout(plan: ReadPlan) -> dict[str, str]:
    """How a program without Feast finds a row: what is around a name in its key; field names."""
    view = plan.views[0]
    name = account_name(0).encode()
    key = entity_keys(plan.project, view.join_keys)(name.decode())
    assert key is not None
    # The name has its length, four bytes, before it.
    before, _, after = key.partition(len(name).to_bytes(4, "little") + name)
    fields = [feature_field(view.name, feature.name).hex() for feature in view.features]
    return {"FEAST_KEY": f"{before.hex()},{after.hex()}", "FEAST_FIELDS": ",".join(fields)}


def _pinned(core: int | None) -> list[str]:
    return [] if core is None else ["taskset", "-c", str(core)]


def _each(pid: int, what: Callable[[psutil.Process], float]) -> Iterator[float]:
    for member in _family(pid):
        with contextlib.suppress(psutil.Error):
            yield what(member)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []
