"""On what a benchmark ran: machine, versions, commit."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from stream_infer.store.embedded import redis_server_program
from tests.servers.jars import POM, java

PACKAGES = (
    "aiokafka",
    "confluent-kafka",
    "faust-streaming",
    "feast",
    "msgspec",
    "numpy",
    "onnxruntime",
    "redis",
    "uvloop",
)


def machine() -> dict[str, str | int]:
    """Processor, cores, memory, system."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def versions() -> dict[str, str]:
    """Python, the servers, and the packages that matter."""
    kafka = POM.read_text().partition("<artifactId>kafka_2.13</artifactId>")[2]
    return {
        "python": platform.python_version(),
        "kafka": kafka.partition("<version>")[2].partition("<")[0],
        "java": _said([java(), "-version"]).splitlines()[0].split('"')[1],
        "redis-server": _said([str(redis_server_program()), "--version"]).split("v=")[1].split()[0],
        **{name: version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The commit that is measured, with a + where files differ from it; empty outside of git."""
    root = Path(__file__).parents[1]
    git = ["git", "-C", str(root)]
    try:
        head = _said([*git, "rev-parse", "--short", "HEAD"]).strip()
        changed = _said([*git, "status", "--porcelain", "--untracked-files=no"]).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


def _said(command: list[str]) -> str:
    return subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
