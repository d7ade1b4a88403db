"""The read plan of a feature service, and when it is made anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream_infer.core.errors import DeclarationError, SettingsError
from stream_infer.store.feast_plan import (
    JoinKey,
    PlanFeature,
    PlanSource,
    registry_path,
    stored_plan,
)
from stream_infer.store.feast_repo import (
    apply,
    apply_and_materialize,
    connection_string,
    load_plan,
)
from tests.store.feast_types import DAYS, DEFINITIONS, write_repository

# Feast warns of on-demand views, which the repository has so that they are refused.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")

DAY_US = 86_400_000_000
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of all types, applied; no Redis is needed for that."""
    folder = write_repository(tmp_path_factory.mktemp("plan") / "repo")
    apply(folder)
    return folder


def test_a_plan_tells_names_keys_fields_types_and_time_to_live(repo: Path) -> None:
    plan = load_plan(repo, "everything", exclude=["users__text"])
    assert plan.names == (
        *("users__double", "users__float", "users__long", "users__int", "users__flag"),
        *("visits_there__count", "visits_there__rate"),
        *("shops__rating", "shops__open", "more__spare"),
    )
    assert plan.fields == ("user_id", "target", "shop_name")
    assert plan.view_of.tolist() == [0] * 5 + [1] * 2 + [2] * 2 + [3]
    assert plan.ttl_us.tolist() == [2 * DAY_US, 30 * DAY_US, 0, 30 * DAY_US]
    visits = plan.views[1]
    assert visits.name == "visits"
    assert visits.join_keys == (
        JoinKey("shop_name", "target", "STRING"),
        JoinKey("user_id", "user_id", "INT64"),
    )
    assert visits.features == (PlanFeature("count", "INT64"), PlanFeature("rate", "DOUBLE"))
    assert visits.source == PlanSource("data/visits.parquet", "event_timestamp")
    layout = plan.layout()
    assert layout.feature_names == plan.names
    assert layout.views == ("users", "visits_there", "shops", "more")
    assert layout.join_fields == (("user_id",), ("target", "user_id"), ("shop_name",), ("user_id",))


def test_text_is_refused_by_name_unless_it_is_excluded(repo: Path) -> None:
    with pytest.raises(DeclarationError, match=r"'everything'.*users__text \(STRING\)"):
        load_plan(repo, "everything")


def test_an_exclusion_of_nothing_names_the_nearest_feature(repo: Path) -> None:
    with pytest.raises(DeclarationError, match="did you mean 'users__text'"):
        load_plan(repo, "everything", exclude=["users__test"])


def test_excluding_all_of_a_view_drops_it(repo: Path) -> None:
    plan = load_plan(repo, "everything", exclude=["users__text", "more__spare"])
    assert [view.alias for view in plan.views] == ["users", "visits_there", "shops"]


def test_an_unknown_service_names_the_nearest(repo: Path) -> None:
    with pytest.raises(DeclarationError, match="did you mean 'everything'"):
        load_plan(repo, "everythin")


def test_on_demand_views_are_refused_by_name(repo: Path) -> None:
    with pytest.raises(DeclarationError, match="on-demand view 'computed'"):
        load_plan(repo, "with_code")


def test_a_stored_plan_is_read_without_importing_feast(repo: Path) -> None:
    load_plan(repo, "everything", exclude=["users__text"])
    program = (
        "import sys; from stream_infer.store.feast_repo import load_plan;"
        f"load_plan({str(repo)!r}, 'everything', ['users__text']);"
        "from stream_infer.store.batch_features import BatchFeatureReader;"
        "sys.exit(bool({'feast', 'pandas', 'pyarrow', 'google.protobuf'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


def test_a_changed_registry_or_configuration_makes_the_plan_anew(tmp_path: Path) -> None:
    repo = write_repository(tmp_path / "repo")
    apply(repo)
    first = load_plan(repo, "everything", exclude=["users__text"])
    assert stored_plan(repo, "everything") is not None
    (repo / "definitions.py").write_text(DEFINITIONS.replace("timedelta(days=2)", "timedelta(1)"))
    apply(repo)
    assert stored_plan(repo, "everything") is None
    second = load_plan(repo, "everything", exclude=["users__text"])
    assert (first.ttl_us[0], second.ttl_us[0]) == (2 * DAY_US, DAY_US)
    with (repo / "feature_store.yaml").open("a") as configuration:
        configuration.write("flags: {}\n")
    assert stored_plan(repo, "everything") is None


def test_a_damaged_stored_plan_is_made_anew(tmp_path: Path, repo: Path) -> None:
    plan = load_plan(repo, "everything", exclude=["users__text"])
    registry = registry_path(repo)
    assert registry is not None
    registry.with_name("registry.everything.plan.json").write_text('{"fingerprint": 3}')
    assert load_plan(repo, "everything", exclude=["users__text"]) == plan


def test_definitions_that_are_gone_leave_the_registry(tmp_path: Path) -> None:
    repo = write_repository(tmp_path / "repo")
    assert set(apply(repo)) == {"everything", "with_code"}
    shorter = DEFINITIONS[: DEFINITIONS.index("with_code =")]
    (repo / "definitions.py").write_text(shorter)
    assert apply(repo) == ["everything"]


def test_a_folder_that_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"feature_store\.yaml"):
        load_plan(tmp_path, "everything")
    (tmp_path / "feature_store.yaml").write_text("just text")
    with pytest.raises(DeclarationError, match="not a mapping"):
        load_plan(tmp_path, "everything")


def test_another_online_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: x\nonline_store: {type: sqlite}\n")
    with pytest.raises(DeclarationError, match="must be of type redis"):
        load_plan(tmp_path, "everything")


def test_a_registry_elsewhere_keeps_no_plan(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("registry: s3://bucket/registry.db\n")
    assert registry_path(tmp_path) is None
    assert stored_plan(tmp_path, "everything") is None


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("redis://127.0.0.1:6380/2", "127.0.0.1:6380,db=2"),
        ("redis://localhost", "localhost:6379,db=0"),
        ("rediss://me:p%40ss@host:1/0", "host:1,db=0,username=me,password=p@ss,ssl=true"),
    ],
)
def test_redis_addresses_are_respelt_for_feast(url: str, spelling: str) -> None:
    assert connection_string(url) == spelling


@pytest.mark.parametrize("url", ["http://host", "redis://", "redis://:a%2Cb@host"])
def test_redis_addresses_that_feast_cannot_have_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="Redis URL"):
        connection_string(url)


def test_an_absent_redis_is_said_at_once(repo: Path) -> None:
    with pytest.raises(SettingsError, match=r"no answer at 127\.0\.0\.1:1"):
        apply_and_materialize(repo, DAYS[0], "redis://127.0.0.1:1")
