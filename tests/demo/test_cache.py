"""A step is made again exactly when what it was made from has changed."""

from pathlib import Path

from stream_infer.demo.cache import Stamps, fingerprint


def test_a_step_is_known_until_its_input_changes(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("a = 1")
    stamps = tmp_path / "folder" / "steps.json"
    before = fingerprint([tmp_path], ["numpy"], "more")
    assert Stamps(stamps).get("models", before) is None
    Stamps(stamps).put("models", before, {"rmse": 1.5})
    assert Stamps(stamps).get("models", before) == {"rmse": 1.5}
    assert fingerprint([tmp_path], ["numpy"], "more") == before
    for changed in (
        fingerprint([tmp_path], ["numpy"], "other"),
        fingerprint([tmp_path], [], "more"),
    ):
        assert changed != before
    source.write_text("a = 2")
    after = fingerprint([tmp_path], ["numpy"], "more")
    assert Stamps(stamps).get("models", after) is None


def test_a_damaged_file_of_stamps_only_costs_the_steps(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    path.write_text("{ not json")
    assert Stamps(path).get("models", "x") is None
    Stamps(path).put("models", "x", 1)
    assert Stamps(path).get("models", "x") == 1
