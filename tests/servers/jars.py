"""Kafka's artifacts from Maven, fetched once into .kafka/lib; `python -m tests.servers.jars` does
it."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
FOLDER = Path(__file__).parents[2] / ".kafka"


class MissingProgramError(Exception):
    """A program that the test servers need is not installed."""


def program(name: str, package: str) -> str:
    """Path of the program `name`. Raises MissingProgramError, which says what to install."""
    found = shutil.which(name)
    if found is None:
        raise MissingProgramError(
            f"The tests run a real Kafka, which needs {name!r}: install it (Debian: "
            f"apt-get install {package}), or set STREAM_INFER_TEST_KAFKA to a running broker."
        )
    return found


def java() -> str:
    """Path of a Java that runs Kafka 4 (17 or newer)."""
    return program("java", "openjdk-17-jre-headless")


def kafka_jars() -> Path:
    """The folder of the artifacts that pom.xml names, fetched where they are not there yet.

    Raises MissingProgramError without Java or Maven, RuntimeError where Maven fails.
    """
    java()
    stamp = FOLDER / "pom.sha256"
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    library = FOLDER / "lib"
    if stamp.is_file() and stamp.read_text() == wanted and library.is_dir():
        return library
    maven = program("mvn", "maven")
    print("Fetching Kafka's artifacts with Maven (54 MB, once) …", file=sys.stderr, flush=True)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        draft = Path(folder) / "lib"
        command = [maven, "-q", "-B", "-ntp", "-f", str(POM), "dependency:copy-dependencies"]
        result = subprocess.run(
            [*command, f"-DoutputDirectory={draft}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"Maven could not fetch Kafka's artifacts:\n{result.stdout}")
        shutil.rmtree(library, ignore_errors=True)
        draft.rename(library)
    stamp.write_text(wanted)
    return library


if __name__ == "__main__":
    try:
        kafka_jars()
    except (MissingProgramError, RuntimeError) as failure:
        sys.exit(str(failure))
