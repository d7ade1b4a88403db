"""The lock files pin each package once, by hash, agree with each other, and name no host."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["build", "demo", "dev", "bench"]


def _pins(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes by package of a lock file."""
    pins: dict[str, tuple[str, int]] = {}
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    for entry in re.split(r"\n(?=\w)", re.sub(r"^#.*\n", "", text, flags=re.M).strip()):
        match = re.match(r"([\w.-]+)==([\w.!+]+)", entry)
        assert match, f"not an exact version: {entry.splitlines()[0]}"
        assert match[1] not in pins, f"{match[1]} twice"
        pins[match[1]] = (match[2], entry.count("--hash=sha256:"))
    return pins


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_once_with_hashes(name: str) -> None:
    pins = _pins(name)
    assert pins
    assert not [package for package, (_, hashes) in pins.items() if not hashes]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_host_or_path(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    assert not re.findall(r"https?:|--index|--find-links|--trusted-host|file:|(?<!\w)/\w", text)


def test_dev_contains_demo_and_build_and_bench_contains_dev_at_the_same_versions() -> None:
    dev = _pins("dev")
    assert _pins("bench").items() >= dev.items()
    assert dev.items() >= _pins("demo").items()
    assert dev.items() >= _pins("build").items()


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    locks = {"demo": ["embedded", "train", "demo"], "bench": list(extras)}
    locks["dev"] = [name for name in extras if name != "bench"]
    for lock, names in locks.items():
        declared = [*project["dependencies"], *(d for name in names for d in extras[name])]
        packages = {re.split(r"[\[<>=;~! ]", entry)[0].lower() for entry in declared}
        assert packages - {"stream-infer"} <= _pins(lock).keys()
