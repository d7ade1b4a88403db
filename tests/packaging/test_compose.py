"""docker-compose.yml has the form that Compose wants, and names only what exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from stream_infer.cli.app import app
from stream_infer.settings import PREFIX, load

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
LASTING = {"kafka", "redis", "worker", "server"}
KNOWN_KEYS = {
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "entrypoint",
    "environment",
    "healthcheck",
    "hostname",
    "image",
    "ports",
    "restart",
    "security_opt",
    "stop_grace_period",
    "volumes",
}
DURATION = r"(\d+(us|ms|s|m|h))+"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_known_keys_of_the_right_types(name: str) -> None:
    service = SERVICES[name]
    assert service.keys() <= KNOWN_KEYS
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", service["image"]), "an image with its version"
    assert all(isinstance(value, str) for value in service.get("environment", {}).values())
    assert all(isinstance(part, str) for part in service.get("command", []))
    assert service.get("restart", "no") in {"no", "always", "on-failure", "unless-stopped"}
    assert re.fullmatch(DURATION, service.get("stop_grace_period", "10s"))


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_service_has_a_health_check_and_restarts(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert isinstance(check["retries"], int)
    assert all(
        re.fullmatch(DURATION, check[key])
        for key in ("interval", "timeout", "start_period")
        if key in check
    )
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_dependencies_exist_and_can_be_met() -> None:
    assert SERVICES.keys() >= LASTING
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert wanted["condition"] == "service_completed_successfully"
                assert name not in LASTING


def test_volumes_are_declared_and_used() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {mount.split(":")[0] for mount in mounts} == COMPOSE["volumes"].keys()
    assert all(mount.split(":")[1].startswith("/") for mount in mounts)


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


@pytest.mark.parametrize("name", [name for name in OURS if "command" in SERVICES[name]])
def test_a_command_is_one_of_the_command_line(name: str) -> None:
    arguments = list(SERVICES[name]["command"])
    # typer brings a click of its own, whose classes are not those of the package `click`.
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        word = arguments.pop(0)
        command = command.commands[word]
    context = command.make_context(word, arguments)
    assert context.params


def test_a_script_that_a_service_starts_exists() -> None:
    starts = [service["entrypoint"] for service in SERVICES.values() if "entrypoint" in service]
    assert starts
    assert all(program == "python" and (ROOT / script).is_file() for program, script in starts)


@pytest.mark.parametrize("name", OURS)
def test_environment_variables_are_settings_with_good_values(name: str) -> None:
    environment = {
        key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)
        for key, value in SERVICES[name]["environment"].items()
    }
    assert all(key.startswith(PREFIX) for key in environment)
    settings = load(environment)
    assert settings.broker.split(":")[0] in SERVICES
    assert settings.redis.split("/")[2].split(":")[0] in SERVICES


def test_the_image_is_built_from_files_that_exist_and_runs_as_a_user() -> None:
    build = SERVICES["worker"]["build"]
    text = (ROOT / build["context"] / build["dockerfile"]).read_text().replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]
    assert [line[0] for line in lines].count("FROM") == 2
    users = [line[1] for line in lines if line[0] == "USER"]
    assert users[-1:] != ["root"]
    assert users
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in lines:
        if line[0] == "COPY" and not any(part.startswith("--from") for part in line):
            for source in [part for part in line[1:-1] if not part.startswith("--")]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored or source.endswith(".lock")
