"""The examples in docstrings are right."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in [
        *sorted((ROOT / "stream_infer").rglob("*.py")),
        *(path for path in sorted((ROOT / "benchmarks").glob("*.py")) if ">>>" in path.read_text()),
    ]
    if path.name not in ("__init__.py", "__main__.py")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(module, optionflags=flags).failed == 0
