"""What deploy/ says, without starting anything: read as compose and Dagster read it."""

import re
from typing import Any

import pytest
import yaml

from ernie_pipeline_tests.deploy.compose import DEPLOY, filled, load

SERVICES = {"postgres", "mlflow", "code", "webserver", "daemon"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load()


def test_every_service_has_a_health_check_and_comes_back(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == SERVICES
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name


def test_nothing_is_published_but_on_loopback(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"webserver": ["127.0.0.1:3000:3000"], "mlflow": ["127.0.0.1:5000:5000"]}
    assert not any("network_mode" in service for service in compose["services"].values())


def test_what_is_kept_is_in_named_volumes_and_what_is_mounted_is_here(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source, _, options = volume.split(":")[0], volume.split(":")[1], volume.split(":")[2:]
            if source.startswith("."):
                assert (DEPLOY / source).is_file(), volume
                assert options == ["ro"], volume
            else:
                assert source in compose["volumes"], volume


def test_no_service_starts_without_its_secrets(compose: dict[str, Any]) -> None:
    example = dict(line.split("=") for line in (DEPLOY / ".env.example").read_text().splitlines() if line[0] != "#")
    secrets = {name for name, value in example.items() if not value}
    text = (DEPLOY / "compose.yaml").read_text()
    asked_for = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked_for == secrets, "a secret has no default, and stands in .env.example without a value"
    with pytest.raises(AssertionError, match=r"copy deploy/\.env\.example"):
        filled(text, example)
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            assert not re.search("PASSWORD|KEY|TOKEN", name) or value.startswith("${"), name


def test_both_dagster_yaml_agree_but_for_what_a_database_brings() -> None:
    one, with_database = (
        yaml.safe_load((DEPLOY / name).read_text()) for name in ("dagster.yaml", "postgres/dagster.yaml")
    )
    assert set(with_database) - set(one) == {"storage", "run_queue", "run_retries"}
    for name, section in one.items():
        shared = {key: with_database[name][key] for key in section}
        assert shared == section, name


def test_the_gpu_is_asked_for_where_runs_run() -> None:
    [(service, asked)] = load("compose.gpu.yaml")["services"].items()
    assert service in SERVICES
    [device] = asked["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "dagster" in load()["services"][service]["command"]
    assert load()["services"][service]["command"][1] == "code-server"


def test_the_image_holds_what_its_services_need() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    for name in (name for names in copied for name in names):
        assert (DEPLOY.parent / name).exists(), name
        assert f"!{name}" in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines.index("USER ernie") > max(n for n, line in enumerate(lines) if line.startswith("RUN"))
