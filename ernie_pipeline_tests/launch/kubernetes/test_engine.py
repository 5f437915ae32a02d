"""The engine and each answer that the API may give: no job runs here."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.launch.detached.engine import Status, Unreachable
from ernie_pipeline.launch.kubernetes.api import Api as Client
from ernie_pipeline.launch.kubernetes.engine import KubernetesEngine
from ernie_pipeline.launch.kubernetes.pod import pod_name
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.launch.children import wait_until
from ernie_pipeline_tests.launch.kubernetes.server import Api
from ernie_pipeline_tests.launch.kubernetes.test_pods import HOME, NAME, SETTINGS, WAITS, launch


@pytest.fixture
def engine(api: Api) -> KubernetesEngine:
    """On a cluster that starts no pod."""
    api.cluster.unschedulable = WAITS
    return KubernetesEngine(Client(str(api.kubeconfig)), SETTINGS, pending_s=60)


def submit(engine: KubernetesEngine, name: str = NAME, file: Path = HOME / "job.json") -> None:
    engine.submit(name, launch(), file, {})


FAULTS = ["reset", 401, 408, 410, 429, 500, 503, "html 200", "html 403", "html 404", "html 502"]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_answer_of_the_api_says_nothing_of_the_job(fault: int | str, api: Api, engine: Any) -> None:
    """Above all no 404 of a proxy: the job would be started a second time."""
    submit(engine)
    with api.faulty(fault):
        for ask in (lambda: engine.status(NAME), lambda: engine.stop(NAME), lambda: submit(engine, NAME + "2")):
            with pytest.raises(Unreachable, match=r"Kubernetes (does not answer|answers with).*goes on") as raised:
                ask()
            assert "\n" not in str(raised.value)
    assert engine.status(NAME).state == "waiting"


@pytest.mark.parametrize("status", ["text", {"containerStatuses": ["text"]}, {"conditions": 7}])
def test_a_pod_that_is_none_says_nothing_of_the_job(status: Any, api: Api, engine: KubernetesEngine) -> None:
    submit(engine)
    api.cluster.pods[pod_name(NAME)].told = status
    with pytest.raises(Unreachable, match="answers with what is no pod"):
        engine.status(NAME)


def test_an_api_that_is_away_and_back_is_unreachable_meanwhile(api: Api, engine: KubernetesEngine) -> None:
    submit(engine)
    api.down()
    with pytest.raises(Unreachable, match="does not answer"):
        engine.status(NAME)
    api.up()
    assert engine.status(NAME).state == "waiting"


def test_a_pod_that_nobody_has_is_unknown_and_may_be_stopped(engine: KubernetesEngine) -> None:
    assert engine.status(NAME) == Status("unknown")
    engine.stop(NAME)
    engine.forget(NAME[:-9])


def test_of_one_name_one_pod_is_started_and_another_s_pod_is_not_taken_for_it(api: Api, engine: Any) -> None:
    submit(engine)
    submit(engine)
    assert [pod.name for pod in api.cluster.all] == [pod_name(NAME)]
    with pytest.raises(PipelineError, match=f"a pod {pod_name(NAME)} is in .* not this job's; delete it"):
        submit(engine, file=HOME / "another.json")


def test_all_attempts_at_a_build_are_forgotten_and_no_other_build_s(api: Api, engine: KubernetesEngine) -> None:
    others = NAME.replace("adapter", "evaluation")
    for name in (NAME, NAME[:-1] + "9", others):
        submit(engine, name)
    engine.forget(NAME[:-9])
    wait_until(lambda: list(api.cluster.pods) == [pod_name(others)])


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (f"Unschedulable: {WAITS}", "add a node that has what it asks for"),
        ("ImagePullBackOff: no such image", r"see that gpu\.kubernetes\.image is there"),
        ('CreateContainerConfigError: secret "hub" not found', "make the Secret or ConfigMap that it names"),
    ],
)
def test_a_pod_that_is_pending_for_ever_is_removed_with_the_reason(reason: str, advice: str, api: Api) -> None:
    """14833: it was left there."""
    api.cluster.unschedulable = WAITS if "Unsched" in reason else ""
    api.cluster.no_image = "no such image" if "Image" in reason else ""
    engine = KubernetesEngine(Client(str(api.kubeconfig)), replace(SETTINGS, secrets=["hub"]), pending_s=0.2)
    submit(engine)
    wait_until(lambda: engine.status(NAME).why == reason)
    wait_until(lambda: engine.status(NAME).state == "ended")
    status = engine.status(NAME)
    assert not api.cluster.pods
    words = (
        rf"did not start on Kubernetes within gpu\.kubernetes\.pending_s = 0\.2 s .* and its pod was removed; {advice}"
    )
    with pytest.raises(PipelineError, match=words):
        raise PipelineError(status.failure)
    assert reason in status.failure


def test_a_right_that_is_missing_is_named(api: Api, engine: KubernetesEngine) -> None:
    api.forbidden = {("create", "pods")}
    named = 'does not let this account {} in namespace "ernie".*deploy/kubernetes/rbac.yaml'
    with pytest.raises(PipelineError, match=named.format("create pods")) as raised:
        submit(engine)
    assert not isinstance(raised.value, Unreachable)
    api.forbidden = set()
    submit(engine)
    for verb, ask in (("get", engine.status), ("delete", engine.stop), ("list", engine.forget)):
        api.forbidden = {(verb, "pods")}
        with pytest.raises(Unreachable, match=named.format(f"{verb} pods")):
            ask(NAME)


def test_what_the_api_refuses_is_one_sentence(api: Api, engine: KubernetesEngine, tmp_path: Path) -> None:
    api.quota = "gpus, requested: requests.nvidia.com/gpu=1, used: 4, limited: 4"
    with pytest.raises(PipelineError, match=r"does not take a pod .*HTTP 403.*exceeded quota.*ask for less"):
        submit(engine)
    api.quota = ""
    elsewhere = KubernetesEngine(Client(str(api.kubeconfig), namespace="nowhere"), SETTINGS)
    with pytest.raises(
        PipelineError, match=r"HTTP 404.*namespaces \"nowhere\" not found.*set gpu.kubernetes.namespace"
    ):
        submit(elsewhere)
    template = tmp_path / "pod.yaml"
    template.write_text("kind: Pod\nspec: {containers: [{resources: {requests: {nvidia.com/gpu: 1}}}]}")
    wrong = KubernetesEngine(engine.api, replace(SETTINGS, template=str(template)))
    with pytest.raises(PipelineError, match=r"HTTP 422.*Limit must be set.*correct gpu.kubernetes"):
        submit(wrong)


def test_a_pod_whose_command_is_not_in_its_image_is_not_tried_again(api: Api) -> None:
    engine = KubernetesEngine(Client(str(api.kubeconfig)), replace(SETTINGS, python="/no/python"))
    submit(engine)
    wait_until(lambda: engine.status(NAME).state == "ended")
    assert "could not be started (StartError: failed to create" in engine.status(NAME).failure


def test_a_pod_on_a_node_that_does_not_answer_is_told_without_its_log(api: Api, engine: KubernetesEngine) -> None:
    submit(engine)
    pod = api.cluster.pods[pod_name(NAME)]
    pod.node_lost, pod.told = True, {"phase": "Failed", "reason": "NodeLost"}
    status = Status("unknown")
    for _ in range(10):
        try:
            status = engine.status(NAME)
        except Unreachable:
            continue
    assert status.is_lost
    assert "its log could not be read" in status.output


KUBECONFIGS = {
    None: "the kubeconfig does not say how to reach a cluster",
    "": "the kubeconfig does not say",
    "[": "the kubeconfig does not say",
    "{current-context: a, contexts: [], clusters: [], users: []}": "the kubeconfig does not say",
}


@pytest.mark.parametrize("text", KUBECONFIGS)
def test_a_kubeconfig_that_is_none_is_one_sentence(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PipelineError, match=KUBECONFIGS[text]) as raised:
        KubernetesEngine(Client(str(file)), SETTINGS).status(NAME)
    assert "\n" not in str(raised.value)


def test_a_context_that_is_not_there_is_one_sentence(api: Api) -> None:
    with pytest.raises(PipelineError, match="the kubeconfig does not say how to reach a cluster"):
        KubernetesEngine(Client(str(api.kubeconfig), context="nowhere"), SETTINGS).status(NAME)


@pytest.mark.parametrize("module", ["kubernetes", "dagster_k8s.pipes"])
def test_without_its_client_the_launcher_says_what_to_install(
    module: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PipelineError, match=r"not installed here; install ernie_pipeline\[kubernetes\], or set"):
        submit(KubernetesEngine(Client(str(api.kubeconfig)), SETTINGS))
