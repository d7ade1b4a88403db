"""Imports run one way, and the core is pure."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "stream_infer"
BASE = {"collector", "core", "settings", "loading", "guard", "processes", "failpoints"}
MAY_IMPORT = {
    "core": {"core"},
    "settings": {"core"},
    "loading": {"core"},
    "collector": set(),
    "guard": set(),
    "failpoints": {"core"},
    "processes": {"core", "guard"},
    "monitoring": {"monitoring"} | BASE,
    "models": {"models"} | BASE,
    "store": {"store"} | BASE,
    "stream": {"stream", "models", "store", "monitoring"} | BASE,
    "training": {"training", "models", "store"} | BASE,
    "serving": {"serving", "stream", "models", "store", "monitoring"} | BASE,
    "demo": {"demo", "serving", "training", "stream", "models", "store", "monitoring"} | BASE,
    "cli": {"cli", "demo", "serving", "training", "stream", "models", "store", "monitoring"} | BASE,
}
CORE_MAY_USE = {"numpy", "msgspec"} | set(sys.stdlib_module_names)
CORE_MAY_NOT_USE = {"asyncio", "logging", "os", "socket", "threading", "time", "random"}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: import *"
            yield node.module or ""


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[layer(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "stream_infer" and len(parts) > 1:
            assert parts[1] in allowed, f"{path.relative_to(ROOT)} imports {name}"
        assert parts[0] not in ("tests", "topologies", "features") or layer(path) == "demo", (
            f"{path.relative_to(ROOT)} imports {name}"
        )


@pytest.mark.parametrize("path", sorted((ROOT / "core").glob("*.py")), ids=lambda path: path.stem)
def test_the_core_is_pure(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top == "stream_infer" or top in CORE_MAY_USE, f"core imports {name}"
        assert top not in CORE_MAY_NOT_USE, f"core imports {name}"
    assert "async " not in path.read_text()


def test_modules_import_without_a_cycle() -> None:
    edges = {
        ".".join(("stream_infer", *path.relative_to(ROOT).with_suffix("").parts)): {
            name for name in imports(path) if name.startswith("stream_infer.")
        }
        for path in modules()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for target in edges.get(name, ()):
                visit(target, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())
