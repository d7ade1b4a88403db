"""Environments of the peers, each its own, made once below `.peers/`; and their versions.

Python's come from `requirements.lock` through uv, Java's from `pom.xml` through Maven. Locks are
made anew from `requirements.in` by the command that stands at their top.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.peers.catalogue import Peer
from benchmarks.processes import BenchmarkError
from tests.servers.jars import program

CACHE = Path(__file__).parents[2] / ".peers"
INSTALL_MAX_S = 600
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[a-z0-9,-]+\])?==([^\s;]+)")
_MAVEN = "{http://maven.apache.org/POM/4.0.0}"


def environment(peer: Peer) -> Path:
    """The folder of a peer's environment, made where it is not there or not as pinned.

    Raises BenchmarkError where an installer fails.
    """
    folder = CACHE / peer.key
    stamp = folder / "made-from.sha256"
    sources = _sources(peer)
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    print(f"Installing {peer.name} into .peers/{peer.key} …", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    if is_java(peer):
        maven = [program("mvn", "maven"), "-q", "-B", "-ntp", "-f", str(peer.folder / "pom.xml")]
        goals = ["package", "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'lib'}"]
        _run(peer, [*maven, f"-Dfolder={folder}", *goals])
    else:
        uv = Path(sys.executable).with_name("uv")
        _run(peer, [uv, "venv", "-q", "--python", sys.executable, folder])
        lock = peer.folder / "requirements.lock"
        python = folder / "bin" / "python"
        sync: list[str | Path] = [
            uv,
            "pip",
            "sync",
            "-q",
            "--compile-bytecode",
            "--python",
            python,
            lock,
        ]
        _run(peer, sync)
    stamp.write_text(wanted)
    return folder


def is_java(peer: Peer) -> bool:
    """Whether Maven builds it."""
    return (peer.folder / "pom.xml").is_file()


def versions(peer: Peer) -> Mapping[str, str]:
    """The pinned version of each of its main packages."""
    pins = java_pins(peer) if is_java(peer) else pins_of(peer.folder / "requirements.lock")
    return {name: pins[name] for name in peer.packages}


def pins_of(path: Path) -> dict[str, str]:
    """Package and version of each line; raises BenchmarkError where a line pins none."""
    pins = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            found = _PIN.match(line)
            if found is None:
                raise BenchmarkError(f"{path}: write NAME==VERSION, not {line!r}")
            pins[found[1].lower()] = found[2]
    return pins


def java_pins(peer: Peer) -> dict[str, str]:
    """Artifact and version of each dependency and plugin that its pom.xml names."""
    root = ElementTree.parse(peer.folder / "pom.xml").getroot()
    return {
        item.findtext(f"{_MAVEN}artifactId", ""): item.findtext(f"{_MAVEN}version", "")
        for kind in ("dependency", "plugin")
        for item in root.iter(f"{_MAVEN}{kind}")
    }


def _sources(peer: Peer) -> list[Path]:
    """What an environment is made from."""
    if is_java(peer):
        return [peer.folder / "pom.xml", *sorted(peer.folder.glob("src/**/*.java"))]
    return [peer.folder / "requirements.lock"]


def _run(peer: Peer, command: Sequence[str | Path]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=INSTALL_MAX_S,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{peer.name}: not installed after {INSTALL_MAX_S} s") from None
    if done.returncode:
        raise BenchmarkError(f"{peer.name}: cannot be installed:\n{done.stdout[-2000:]}")
