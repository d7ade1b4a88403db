"""Settings come from the environment over a file over defaults; a wrong one is named."""

from pathlib import Path

import pytest

from stream_infer.core.errors import SettingsError
from stream_infer.settings import load
from tools.settings_reference import PAGE, reference


def test_the_environment_wins_over_the_file_and_overrides_over_both(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('broker = "file:1"\npartitions = 7\nflush_interval_s = 0.5\n')
    environment = {
        "STREAM_INFER_CONFIG": str(file),
        "STREAM_INFER_BROKER": "environment:1",
        "STREAM_INFER_HTTP_INSECURE": "true",
        "HOME": "/",
    }
    settings = load(environment, flush_interval_s=0.25, redis=None)
    assert settings.broker == "environment:1"
    assert settings.partitions == 7
    assert settings.flush_interval_s == 0.25
    assert settings.http_insecure


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STREAM_INFER_BROKR": "x"}, "did you mean 'broker'"),
        ({"STREAM_INFER_HTTP_PORT": "99999"}, "http_port"),
        ({"STREAM_INFER_FLUSH_INTERVAL_S": "soon"}, "flush_interval_s"),
        ({"STREAM_INFER_CONFIG": "absent.toml"}, "absent.toml"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(environment)


def test_a_secret_in_a_url_is_not_printed() -> None:
    assert "hunter2" not in repr(load({"STREAM_INFER_REDIS": "redis://:hunter2@localhost:6379"}))


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference()
