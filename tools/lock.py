"""Write requirements/*.lock: exact versions with hashes, for every Python from 3.11 to 3.13.

The dev lock is resolved first and constrains the others, so that one environment can hold both.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
OPTIONS = [
    "--universal",
    "--python-version=3.11",
    # One version of a package for all Pythons: the same figures everywhere.
    "--fork-strategy=fewest",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-annotate",
    "--upgrade",
    "--custom-compile-command=make lock",
    "--quiet",
]


def compile_lock(name: str, *sources: str, stdin: str | None = None) -> None:
    """Resolve `sources` into requirements/NAME.lock. Raises CalledProcessError where uv fails."""
    command = [str(UV), "pip", "compile", *OPTIONS, "-o", f"requirements/{name}.lock", *sources]
    subprocess.run(command, check=True, cwd=ROOT, text=True, input=stdin, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    compile_lock("dev", "--extra=dev", "pyproject.toml")
    compile_lock("bench", "--extra=bench", "-c", "requirements/dev.lock", "pyproject.toml")
    compile_lock("demo", "--extra=demo", "-c", "requirements/dev.lock", "pyproject.toml")
    compile_lock("build", "-c", "requirements/dev.lock", "-", stdin="setuptools>=77\n")
