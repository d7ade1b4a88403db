"""Laws of the model repository."""

import json
from pathlib import Path

import pytest

from stream_infer.core.errors import ModelError
from stream_infer.models.manifest import Ensemble
from stream_infer.models.repository import ModelRepository
from tests.models import tiny


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path / "models")


def test_what_is_stored_is_loaded(repository: ModelRepository) -> None:
    stored = tiny.save(repository, tiny.linear())
    loaded = repository.load("flights", "tiny")
    assert loaded == stored
    assert loaded.manifest.version == 1
    assert loaded.manifest.features == tiny.NAMES
    assert repository.models("flights") == ["tiny"]


def test_latest_is_the_highest_number(repository: ModelRepository) -> None:
    for weight in range(11):
        tiny.save(repository, tiny.linear((weight, 0, 0)))
    assert repository.versions("flights", "tiny") == list(range(1, 12))
    assert repository.load("flights", "tiny").manifest.version == 11
    assert repository.load("flights", "tiny", 2).manifest.version == 2


def test_a_version_is_never_overwritten(
    repository: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny.save(repository, tiny.linear())
    seen = repository.versions
    monkeypatch.setattr(repository, "versions", lambda topology, model: [])
    second = tiny.save(repository, tiny.linear((9, 9, 9)))
    monkeypatch.setattr(repository, "versions", seen)
    assert second.manifest.version == 2
    assert repository.load("flights", "tiny", 1) == first


def test_a_version_is_stored_whole_or_not_at_all(repository: ModelRepository) -> None:
    def fails(version: int, sha256: str) -> tiny.Manifest:
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        repository.save("flights", "tiny", b"x", fails)
    assert list((repository.root / "flights" / "tiny").iterdir()) == []
    assert repository.versions("flights", "tiny") == []


def test_a_changed_file_is_refused_by_its_checksum(repository: ModelRepository) -> None:
    stored = tiny.save(repository, tiny.linear())
    damaged = bytearray(stored.content)
    damaged[-5] ^= 1
    stored.path.write_bytes(damaged)
    with pytest.raises(ModelError, match=r"model 'tiny' version 1: .* was changed or damaged"):
        repository.load("flights", "tiny")


def test_files_above_the_size_limit_are_refused(tmp_path: Path) -> None:
    stored = tiny.save(ModelRepository(tmp_path), tiny.linear())
    small = ModelRepository(tmp_path, model_bytes_max=100)
    message = f"has {len(stored.content)} bytes, above the limit model_bytes_max = 100"
    with pytest.raises(ModelError, match=message):
        small.load("flights", "tiny")
    with pytest.raises(ModelError, match=message):
        tiny.save(small, tiny.linear())


def test_errors_name_what_is_missing_and_the_nearest(repository: ModelRepository) -> None:
    tiny.save(repository, tiny.linear(), model="boosted_trees")
    with pytest.raises(ModelError, match=r"'boosted_tree' .* did you mean 'boosted_trees'\?"):
        repository.load("flights", "boosted_tree")
    with pytest.raises(ModelError, match="'boosted_trees' has no version 4; there are: 1"):
        repository.load("flights", "boosted_trees", 4)
    with pytest.raises(ModelError, match=r"ensemble of topology 'flights' is not in .* train it"):
        repository.ensemble("flights")


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ".hidden", "", "a.b", "x\n", "é"])
def test_names_never_leave_their_folder(repository: ModelRepository, name: str) -> None:
    for topology, model in ((name, "tiny"), ("flights", name)):
        with pytest.raises(ModelError, match="may only have letters"):
            repository.load(topology, model)
        with pytest.raises(ModelError, match="may only have letters"):
            tiny.save(repository, tiny.linear(), model=model, topology=topology)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": 3}', b"\xff\xfe"])
def test_a_broken_manifest_is_named(repository: ModelRepository, content: bytes) -> None:
    stored = tiny.save(repository, tiny.linear())
    (stored.path.parent / "manifest.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"manifest\.json is not valid"):
        repository.load("flights", "tiny")


def test_a_manifest_of_another_version_is_refused(repository: ModelRepository) -> None:
    stored = tiny.save(repository, tiny.linear())
    stored.path.parent.rename(stored.path.parent.parent / "7")
    with pytest.raises(ModelError, match="version 7: its manifest is of 'tiny' version 1"):
        repository.load("flights", "tiny")


def test_an_ensemble_is_replaced_in_one_step(repository: ModelRepository) -> None:
    for weight in (0.25, 0.75):
        ensemble = Ensemble(
            weights={"trees": weight},
            versions={"trees": 1},
            chosen="by hand",
            created_at=tiny.CREATED,
        )
        repository.save_ensemble("flights", ensemble)
        assert repository.ensemble("flights") == ensemble
    assert [path.name for path in (repository.root / "flights").iterdir()] == ["ensemble.json"]
    text = (repository.root / "flights" / "ensemble.json").read_text()
    assert json.loads(text)["weights"] == {"trees": 0.75}
