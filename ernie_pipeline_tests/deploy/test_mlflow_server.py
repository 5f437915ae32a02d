"""MLflow's server on PostgreSQL with its own authentication, as compose.yaml starts it."""

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from ernie_pipeline.registry.lookup import Registered, what_is_lost
from ernie_pipeline.registry.register import register
from ernie_pipeline.registry.registration import RegistrationRequest
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.deploy.cluster import Cluster
from ernie_pipeline_tests.deploy.compose import SECRETS, Services
from ernie_pipeline_tests.registry.conftest import adapter, card, make_request  # noqa: F401


@pytest.fixture(scope="module")
def server(services: Services) -> str:
    """Its address, once it is healthy."""
    services.start("mlflow")
    services.wait_healthy("mlflow")
    return services.url("5000")


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    def as_user(name: str, password: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)

    return as_user


def test_without_a_login_it_is_refused_at_once_in_one_sentence(
    server: str,
    login: Callable[[str, str], None],
    make_request: Callable[..., RegistrationRequest],  # noqa: F811
) -> None:
    request = make_request(tracking_uri=server, artifact_root=None)
    with pytest.raises(PipelineError) as failure:
        register(request)
    advice = "(401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    assert str(failure.value) == f"MLflow at {server} asks for a login, and none was given {advice}"
    login("admin", "wrong")
    with pytest.raises(PipelineError) as failure:
        register(request)
    assert str(failure.value) == f"MLflow at {server} does not know the login that was given {advice}"


def test_the_user_interface_asks_for_a_login_too(server: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.urlopen(server, timeout=10)
    assert failure.value.code == 401


def test_a_registration_with_the_login_is_found_again(
    server: str,
    login: Callable[[str, str], None],
    make_request: Callable[..., RegistrationRequest],  # noqa: F811
    cluster: Cluster,
) -> None:
    """What `registered_model` does; then a user with no more than the default permission tries the same."""
    login("admin", SECRETS["MLFLOW_ADMIN_PASSWORD"])
    made = register(make_request(tracking_uri=server, artifact_root=None))
    assert (made.version, made.promoted) == ("1", True)
    assert what_is_lost(server, Registered(made.name, made.version, made.aliases, made.files)) == ""
    assert cluster.sql("SELECT name, version FROM model_versions", "mlflow") == "ernie-math|1"
    assert cluster.sql("SELECT count(*) FROM users", "mlflow_auth") == "1"

    from mlflow.server import get_app_client

    with connected(server):
        get_app_client("basic-auth", tracking_uri=server).create_user("reader", "password-of-a-reader")
    login("reader", "password-of-a-reader")
    assert what_is_lost(server, Registered(made.name, made.version, made.aliases, made.files)) == ""
    with pytest.raises(PipelineError) as failure:
        register(make_request(tracking_uri=server, artifact_root=None))
    said = "does not let reader do this (403); ask its administrator for the permission"
    assert str(failure.value) == f"MLflow at {server} {said}"
