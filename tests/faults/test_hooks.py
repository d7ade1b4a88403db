"""Models that are told to fail do so as one that fails by itself, whoever calls them."""

from pathlib import Path

import numpy as np
import pytest

from stream_infer.models.calling import TimedCaller
from stream_infer.models.ensemble import Caller, ModelSet, call_directly
from stream_infer.models.sessions import OnnxModel
from tests.faults import hooks
from tests.models import tiny

WELL = np.ones((2, 3), np.float32)


@pytest.mark.parametrize("call", [call_directly, TimedCaller(30.0)])
@pytest.mark.parametrize(
    ("fault", "failures"),
    [
        ("none", {}),
        ("raise", {"tiny": "model:tiny:error"}),
        ("nan", {"tiny": "model:tiny:nan"}),
    ],
)
def test_a_model_fails_as_it_is_told(
    fault: str,
    failures: dict[str, str],
    call: Caller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = ModelSet({"tiny": OnnxModel(tiny.artifact(tiny.linear()), tiny.NAMES)}, call)
    monkeypatch.setattr(OnnxModel, "run", OnnxModel.run)  # To be as it was afterwards.
    hooks.spoil_models(tmp_path / "told")
    hooks.set_models(tmp_path / "told", {"tiny": fault})
    assert models.run(WELL).failures == failures


def test_a_model_that_hangs_is_stopped_in_its_callers_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OnnxModel(tiny.artifact(tiny.linear()), tiny.NAMES)
    monkeypatch.setattr(OnnxModel, "run", OnnxModel.run)
    hooks.spoil_models(tmp_path / "told")
    hooks.set_models(tmp_path / "told", {"tiny": "hang"})
    result = ModelSet({"tiny": model}, TimedCaller(0.1)).run(WELL)
    assert result.failures == {"tiny": "model:tiny:timeout"}
