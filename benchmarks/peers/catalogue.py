"""The peers: what each is, in which modes it runs, and what must be said beside its figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run a peer: settings beyond those of all, in its environment."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    remarks: str = ""
    compared: bool = True
    """Whether its scores must be ours: it has the same features."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program in a folder beside this file, with an environment of its own.

    `ready` is what its log says once it serves; `warm_up_s` what is not measured of a backlog.
    """

    key: str
    name: str
    kind: Literal["stream", "http"]
    packages: tuple[str, ...]
    remarks: str
    modes: tuple[Mode, ...] = (Mode(""),)
    ready: str = ""
    warm_up_s: float = 4.0

    @property
    def folder(self) -> Path:
        """Where its program and its pinned versions are."""
        return FOLDER / self.key


_CACHED = {"CACHED": "1", "THREADS": "1"}

PEERS: tuple[Peer, ...] = (
    Peer(
        "plain_faust",
        "Faust",
        "stream",
        ("faust-streaming", "feast", "onnxruntime"),
        "Four hopping windowed tables (steps of 1 and 5 minutes), read before they are counted; "
        "each event updates 5 + 5 + 12 + 12 windows and sends each to a changelog topic, and "
        "waits for Feast's asynchronous SDK. Counts are written before the offset is committed: "
        "after a kill, events since the last commit count twice. An exception drops its event. A "
        "new owner of a partition restores its tables from the changelog.",
        ready="[^Worker]: Ready",
    ),
    Peer(
        "quix_streams",
        "Quix Streams",
        "stream",
        ("quixstreams", "feast", "onnxruntime"),
        "Counts and sums by minute in its state (RocksDB with a changelog): its own windows give "
        "one aggregate each and cannot be read by an event that they do not replace, so that they "
        "are not used; windows move in steps of a minute, ours of 5 s and 1 min. At least once: "
        "after a kill, a changelog ahead of the commit counts events twice.",
        modes=(
            Mode("Feast read per event"),
            Mode(
                "no feature store",
                {"FEAST": ""},
                remarks="The eight batch features are constants: less than the standard job.",
                compared=False,
            ),
        ),
        ready="is now processing incoming messages",
    ),
    Peer(
        "kafka_streams",
        "Kafka Streams",
        "stream",
        ("kafka-streams", "onnxruntime", "jedis", "caffeine"),
        "Java; no Feast: the program reads Feast's hashes in Redis itself (types, expiry and new "
        "features are its author's to follow). Counts and sums by minute in a memory store with a "
        "changelog, replicated as that topic is; one event at a time to each model. At least "
        "once, events since the last commit (1 s here, 30 s by default) count twice after a kill; "
        "exactly once, state and results are exact. Scores over HTTP and replacing models while it "
        "runs would be its author's to write.",
        modes=(
            Mode("Redis read per event", {"THREADS": "1"}),
            Mode("cached 1 s", _CACHED),
            Mode("cached 1 s, two threads", {**_CACHED, "THREADS": "2"}),
            Mode(
                "cached 1 s, exactly once",
                {**_CACHED, "EXACTLY_ONCE": "1"},
                remarks="exactly_once_v2, committing each 100 ms as is its default; results are "
                "readable at the commit.",
            ),
        ),
        ready="state RUNNING",
        warm_up_s=8.0,
    ),
    Peer(
        "fastapi_feast",
        "FastAPI + Feast",
        "http",
        ("fastapi", "uvicorn", "feast", "onnxruntime"),
        "One uvicorn worker (uvloop, httptools), pydantic in and out; loaded objects are kept out "
        "of garbage collections. No streaming features, shadow models, deadlines or shedding.",
        ready="Application startup complete",
    ),
    Peer(
        "bento",
        "BentoML",
        "http",
        ("bentoml", "feast", "onnxruntime"),
        "One service with one worker, an asynchronous API method. No streaming features.",
        ready="Starting production HTTP BentoServer",
    ),
    Peer(
        "ml_server",
        "MLServer",
        "http",
        ("mlserver", "feast", "onnxruntime"),
        "A custom runtime in the server's own process (parallel_workers 0, best on one core), "
        "Open Inference Protocol in JSON. Needs starlette below 0.48, so that an older Feast. "
        "No streaming features.",
        ready="Application startup complete",
    ),
    Peer(
        "ray_serve",
        "Ray Serve",
        "http",
        ("ray", "feast", "onnxruntime"),
        "One replica behind its proxy; controller, proxy, replica and Ray's own daemons share the "
        "one core, which it is not made for: it scales over many. No streaming features.",
        ready="serving",
    ),
)
BY_KEY: Mapping[str, Peer] = {peer.key: peer for peer in PEERS}
