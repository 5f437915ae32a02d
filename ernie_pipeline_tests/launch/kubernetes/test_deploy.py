"""What deploy/kubernetes says, as the client's models, the chart's schema and the launcher read it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ernie_pipeline.launch.detached.engine import Unreachable
from ernie_pipeline.launch.kubernetes.api import Api as Client
from ernie_pipeline.launch.kubernetes.engine import KubernetesEngine
from ernie_pipeline.launch.kubernetes.pod import PodSettings, pod_body
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.orchestration.engines import KubernetesConfig
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.launch.children import ChildJob, wait_until, work_in
from ernie_pipeline_tests.launch.kubernetes.server import Api, check_pod

DEPLOY = Path(__file__).parents[3] / "deploy" / "kubernetes"
MANIFESTS = ["volume.yaml", "rbac.yaml", "secret.yaml", "pod.yaml"]
HOME = Path("/ernie")
POD = {"nodeSelector", "affinity", "tolerations", "resources", "env", "envSecrets", "envConfigMaps", "volumes"}
CHART: dict[str, Any] = {
    "dagsterWebserver": {"service": {"type", "port", "annotations"}},
    "ingress": {"enabled"},
    "telemetry": {"enabled"},
    "postgresql": {"enabled", "postgresqlScheme"},
    "generatePostgresqlPasswordSecret": None,
    "global": {"postgresqlSecretName", "dagsterHome", "serviceAccountName"},
    "dagster-user-deployments": {
        "enabled": None,
        "enableSubchart": None,
        "serviceAccount": {"create", "name", "annotations"},
        "deployments": None,
    },
    "runLauncher": {
        "type": None,
        "config": {
            "k8sRunLauncher": {
                "imagePullPolicy": None,
                "runK8sConfig": {
                    "podSpecConfig": None,
                    "jobSpecConfig": None,
                },
            }
        },
    },
    "dagsterDaemon": {
        "enabled": None,
        "runCoordinator": {"enabled": None, "type": None, "config": {"queuedRunCoordinator"}},
        "runMonitoring": {
            "enabled",
            "startTimeoutSeconds",
            "cancelTimeoutSeconds",
            "maxResumeRunAttempts",
            "pollIntervalSeconds",
            "freeSlotsAfterRunEndSeconds",
        },
        "runRetries": {"enabled", "maxRetries"},
    },
    "additionalInstanceConfig": None,
}
"""Keys that the chart has, of those we could set: dagster-io/dagster, helm/dagster/schema/schema/charts, and
templates/configmap-instance.yaml there for those that the schema leaves open."""
DEPLOYMENT = POD | {
    "name", "image", "dagsterApiGrpcArgs", "codeServerArgs", "includeConfigInLaunchedRuns", "port", "annotations",
    "podSecurityContext", "securityContext", "livenessProbe", "readinessProbe", "startupProbe", "labels",
    "volumeMounts", "schedulerName",
}  # fmt: skip


def load(name: str) -> list[dict[str, Any]]:
    """The documents in a file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def check(kind: str, document: dict[str, Any]) -> None:
    """Raise for what is none of the kind's fields."""
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
    from kubernetes import client

    model = getattr(client, f"V1{kind}")
    k8s_model_from_dict(model, k8s_snake_case_dict(model, document))


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_of_its_kind(name: str) -> None:
    for document in load(name):
        check(document["kind"], document)
    with pytest.raises(Exception, match="Unexpected keys"):
        check(document["kind"], {**document, "specs": {}})


def test_the_values_are_ones_that_the_chart_has() -> None:
    [values] = load("values.yaml")

    def compare(given: dict[str, Any], known: Any, where: str) -> None:
        for key, value in given.items():
            assert key in known, f"{where}.{key}"
            if isinstance(known, dict) and known[key]:
                compare(value, known[key], f"{where}.{key}")

    compare(values, CHART, "")
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert set(deployment) <= DEPLOYMENT
    check("PodSpec", {"containers": [], "volumes": deployment["volumes"]})
    container = {each: deployment[each] for each in ("env", "volumeMounts", "resources")}
    check("Container", {"name": "code", **container})
    run = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    check("PodSpec", {"containers": [], **run["podSpecConfig"]})
    check("JobSpec", {"template": {}, **run["jobSpecConfig"]})


def test_nobody_but_the_cluster_reaches_the_ui_and_no_secret_is_in_a_file() -> None:
    [values] = load("values.yaml")
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    assert values["ingress"] == {"enabled": False}
    assert values["generatePostgresqlPasswordSecret"] is False
    [secret] = load("secret.yaml")
    assert set(secret["stringData"].values()) == {""}


def test_what_the_files_name_is_in_the_files() -> None:
    names = {(each["kind"], each["metadata"].get("name")) for name in MANIFESTS for each in load(name)}
    [values], [gpu] = load("values.yaml"), load("gpu.yaml")
    [deployment] = values["dagster-user-deployments"]["deployments"]
    kubernetes = gpu["resources"]["gpu"]["config"]["kubernetes"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in deployment["volumes"][:1]]
    for claim in (*claims, kubernetes["volume_claim"]):
        assert ("PersistentVolumeClaim", claim) in names
    for secret in (*kubernetes["secrets"], *(each["name"] for each in deployment["envSecrets"])):
        assert ("Secret", secret) in names
    for account in (kubernetes["service_account"], values["dagster-user-deployments"]["serviceAccount"]["name"]):
        assert ("ServiceAccount", account) in names
    environment = {each["name"]: each["value"] for each in deployment["env"]}
    mounts = [each["mountPath"] for each in deployment["volumeMounts"]]
    assert environment["ERNIE_PIPELINE_HOME"] == kubernetes["mount_path"] == str(HOME)
    assert str(HOME) in mounts
    [template] = load("pod.yaml")
    for variable in template["spec"]["containers"][0]["env"]:
        assert environment[variable["name"]] == variable["value"], "what is in the home is there for both"
    assert str(Path(kubernetes["pod_template"]).parent) in mounts
    image = deployment["image"]
    assert kubernetes["image"] == f"{image['repository']}:{image['tag']}"
    grace = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]["podSpecConfig"]
    assert grace["terminationGracePeriodSeconds"] > Launch.stop_grace_s
    assert values["dagsterDaemon"]["runMonitoring"]["cancelTimeoutSeconds"] > grace["terminationGracePeriodSeconds"]


def test_a_pod_is_made_of_the_template_and_what_a_run_is_launched_with() -> None:
    [gpu] = load("gpu.yaml")
    config = KubernetesConfig(**{**gpu["resources"]["gpu"]["config"]["kubernetes"]})
    engine = config.engine()
    assert isinstance(engine, KubernetesEngine)
    settings = PodSettings(**{**vars(engine.pods), "template": str(DEPLOY / "pod.yaml")})
    launch = Launch(work=work_in("work"), job=ChildJob(out=HOME), threads=8, processes=2)
    pod = pod_body("ernie-a-1", launch, HOME / "job.json", {}, settings)
    check_pod(pod)
    [container] = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "16000m", "memory": "131072Mi", "nvidia.com/gpu": "2"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_a_home_in_a_bucket_needs_its_cache_on_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "s3://bucket/home")
    monkeypatch.delenv("ERNIE_PIPELINE_CACHE", raising=False)
    with pytest.raises(PipelineError, match=r"is a bucket.*set ERNIE_PIPELINE_CACHE to a folder on the volume"):
        KubernetesConfig().engine()
    monkeypatch.setenv("ERNIE_PIPELINE_CACHE", "/ernie/cache")
    engine = KubernetesConfig().engine()
    assert isinstance(engine, KubernetesEngine)
    assert engine.pods.mount_path == "/ernie/cache"


def test_the_role_has_the_rights_that_the_launcher_needs_and_no_others(api: Api) -> None:
    [role] = [each for each in load("rbac.yaml") if each["kind"] == "Role"]
    allowed = {(verb, kind) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
    verbs = {(verb, kind) for verb in ("create", "get", "list", "delete") for kind in ("pods", "pods/log")}
    settings = PodSettings(image="ernie", volume_claim="home", mount_path=str(HOME), python="/bin/false")
    engine = KubernetesEngine(Client(str(api.kubeconfig)), settings)

    launch = Launch(work=work_in("work"), job=ChildJob(out=HOME), threads=1)

    def all_that_it_does(name: str) -> None:
        engine.submit(name, launch, HOME / "job.json", {})
        wait_until(lambda: engine.status(name).state == "ended")
        engine.forget("ernie-a")
        wait_until(lambda: not api.cluster.pods)

    api.forbidden = verbs - allowed
    all_that_it_does("ernie-a-1")
    for number, right in enumerate(sorted(allowed - {("get", "pods/log")})):
        api.forbidden = {right}
        with pytest.raises(PipelineError, match=f"does not let this account {right[0]} {right[1]}"):
            all_that_it_does(f"ernie-a-2{number}")
        api.forbidden = set()
        engine.forget("ernie-a")
    api.forbidden = {("get", "pods/log")}
    engine.submit("ernie-a-3", launch, HOME / "job.json", {})
    said: list[str] = []

    def is_told() -> bool:
        """Without its log an end is told all the same."""
        with suppress(Unreachable):
            said.append(engine.status("ernie-a-3").output)
        return bool(said and said[-1])

    wait_until(is_told)
    assert "could not be read: Kubernetes does not let this account get pods/log" in said[-1]
