"""Write docs/reference/settings.md from the declarations in stream_infer/settings.py."""

import ast
import inspect
from itertools import pairwise
from pathlib import Path

import msgspec

from stream_infer import settings

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"


def reference() -> str:
    """Return the page: every setting with its variable, default, bounds and meaning."""
    declaration = ast.parse(inspect.getsource(settings.Settings)).body[0]
    assert isinstance(declaration, ast.ClassDef)
    rows = [
        _row(field.target.id, " ".join(str(text.value.value).split()))
        for field, text in pairwise(declaration.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    ]
    return (
        "# Settings\n\n"
        "From the environment, over the TOML file that `STREAM_INFER_CONFIG` names, over the "
        "defaults. A setting\nthat is unknown or out of bounds is refused by name. This page is "
        "written by `tools/settings_reference.py`.\n\n"
        "| variable | default | bounds | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _row(name: str, meaning: str) -> str:
    field = settings.FIELDS[name]
    bounds = msgspec.json.schema(field.type)
    limits = [f"{bounds[key]:,}" for key in ("minimum", "maximum") if key in bounds]
    default = field.default if field.default != "" else "(empty)"
    shown = f"{default:,}" if isinstance(default, int) and default > 9_999 else str(default)
    return f"| `{settings.PREFIX}{name.upper()}` | {shown} | {' … '.join(limits)} | {meaning} |"


if __name__ == "__main__":
    PAGE.write_text(reference())
