"""A pod's name and manifest, what its status means, and each answer that the API may give: no job runs here."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.launch.detached.engine import Status, Unreachable
from ernie_pipeline.launch.kubernetes.api import Api as Client
from ernie_pipeline.launch.kubernetes.engine import KubernetesEngine
from ernie_pipeline.launch.kubernetes.pod import PodSettings, build_label, pod_body, pod_name
from ernie_pipeline.launch.kubernetes.standing import standing
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.launch.children import ChildJob, wait_until, work_in
from ernie_pipeline_tests.launch.kubernetes.cluster import expanded
from ernie_pipeline_tests.launch.kubernetes.server import DNS_1123, Api, check_pod

HOME = Path("/home/of/steps")
SETTINGS = PodSettings(image="ernie", volume_claim="home", mount_path=str(HOME))
NAME = f"ernie-qlora_adapter-{'f' * 64}-0a1b2c3d-11223344"
WAITS = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def launch(processes: int = 1, **changes: Any) -> Launch:
    job = ChildJob(out=HOME / "out")
    return Launch(work=work_in("work"), job=job, threads=1, processes=processes, state=HOME / "state", **changes)


def body(name: str = NAME, processes: int = 1, variables: Any = None, **settings: Any) -> dict[str, Any]:
    """A pod, which the API takes."""
    made = pod_body(name, launch(processes), HOME / "job.json", variables or {}, replace(SETTINGS, **settings))
    check_pod(made)
    return made


@pytest.fixture
def engine(api: Api) -> KubernetesEngine:
    """On a cluster that starts no pod."""
    api.cluster.unschedulable = WAITS
    return KubernetesEngine(Client(str(api.kubeconfig)), SETTINGS, pending_s=60)


def submit(engine: KubernetesEngine, name: str = NAME, file: Path = HOME / "job.json") -> None:
    engine.submit(name, launch(), file, {})


NAMES = [
    NAME, NAME[:-1] + "5", NAME.upper(), NAME.replace("_", "-"), "ernie-a", "Ernie-A", "ernie_a", "-ernie-a-", "", "-",
    "ernie-ünï-😀", "\udcff", "a" * 300, "a" * 301, "7.of.9", "$(rm -rf)", "a\nb",
]  # fmt: skip


def test_names_are_dns_1123_at_most_63_characters_and_no_two_are_one() -> None:
    pods = [pod_name(name) for name in NAMES]
    assert len(set(pods)) == len(set(NAMES))
    for pod in pods:
        assert DNS_1123.fullmatch(pod)
        assert len(pod) <= 63
    assert pods == [pod_name(name) for name in NAMES]
    assert pod_name(NAME).startswith("ernie-qlora-adapter-ffff")
    for name in NAMES[:-5]:
        body(name)


def test_a_pod_asks_for_what_its_processes_need_and_hands_on_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "/code")
    made = body(processes=2, cpus=1.5, gpus=1, memory_gib=4, secrets=["hub"], service_account="jobs")
    [container] = made["spec"]["containers"]
    amounts = {"cpu": "3000m", "memory": "8192Mi", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"requests": amounts, "limits": amounts}
    assert container["envFrom"] == [{"secretRef": {"name": "hub"}}]
    assert "hf_secret" not in json.dumps(made)
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert (variables["PYTHONPATH"], variables["GLOO_SOCKET_IFNAME"]) == ("/code", "lo")
    assert made["spec"]["terminationGracePeriodSeconds"] == 130, "the stop grace, and a little"
    assert made["spec"]["automountServiceAccountToken"] is False
    assert {each["mountPath"] for each in container["volumeMounts"]} == {str(HOME), "/dev/shm"}
    assert made["spec"]["volumes"][1] == {"name": "ernie-shm", "emptyDir": {"medium": "Memory"}}
    assert made["metadata"]["labels"]["ernie-pipeline/build"] == build_label(NAME[:-9])


def test_a_variable_s_value_and_a_path_reach_the_job_as_they_are(tmp_path: Path) -> None:
    """The kubelet takes `$(NAME)` for a reference."""
    odd = "$(PATH) $$ $HOME ${A} ü😀\n'\""
    made = pod_body(NAME, launch(), HOME / "$(PATH)" / "job.json", {"ODD": odd}, SETTINGS)
    [container] = made["spec"]["containers"]
    [value] = [each["value"] for each in container["env"] if each["name"] == "ODD"]
    assert expanded(value, {"PATH": "/bin"}) == odd
    assert expanded(container["command"][-1], {"PATH": "/bin"}) == str(HOME / "$(PATH)" / "job.json")


TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: mine, labels: {team: maths}, annotations: {cost: "7"}}
spec:
  restartPolicy: Always
  terminationGracePeriodSeconds: 1
  priorityClassName: low
  automountServiceAccountToken: true
  nodeSelector: {disk: fast}
  initContainers: [{name: first, image: busybox}]
  containers:
  - name: main
    image: theirs
    command: [sleep]
    args: [infinity]
    env: [{name: MINE, value: kept}, {name: JOB, value: theirs}]
    securityContext: {runAsNonRoot: true}
    resources: {limits: {cpu: 64, ephemeral-storage: 10Gi}}
    volumeMounts: [{name: theirs, mountPath: /home/of/steps}, {name: shm, mountPath: /dev/shm}]
  - {name: beside, image: mesh}
  volumes: [{name: theirs, emptyDir: {}}, {name: shm, emptyDir: {medium: Memory, sizeLimit: 1Gi}}]
"""


def test_a_template_is_kept_but_for_what_is_the_job_s(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(TEMPLATE)
    settings = {"template": str(file), "cpus": 2, "node_selector": {"gpu": "h100"}, "image": ""}
    made = body(processes=2, variables={"JOB": "ours"}, **settings)
    main, beside = made["spec"]["containers"]
    assert (main["image"], body(template=str(file))["spec"]["containers"][0]["image"]) == ("theirs", "ernie")
    assert "args" not in main
    assert main["command"][:3] == ["python", "-m", "ernie_pipeline.launch.kubernetes.init"]
    assert made["metadata"]["name"] == pod_name(NAME)
    assert made["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "main"
    assert [each for each in main["env"] if each["name"] == "JOB"] == [{"name": "JOB", "value": "ours"}]
    assert main["resources"]["limits"] == {"cpu": "4000m", "ephemeral-storage": "10Gi"}
    assert {each["mountPath"]: each["name"] for each in main["volumeMounts"]} == {
        str(HOME): "ernie-home",
        "/dev/shm": "shm",
    }
    spec = made["spec"]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 130)
    assert (spec["priorityClassName"], spec["automountServiceAccountToken"]) == ("low", True)
    assert spec["nodeSelector"] == {"disk": "fast", "gpu": "h100"}
    assert (made["metadata"]["labels"]["team"], beside["image"]) == ("maths", "mesh")
    assert main["securityContext"] == {"runAsNonRoot": True}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read (.*No such file"),
        ("{a: [", "cannot be read"),
        ("- a", "is no manifest of one Pod"),
        ("kind: Deployment\nspec: {}", "is no manifest of one Pod"),
        ("kind: Pod\n---\nkind: Pod", "cannot be read"),
        ("kind: Pod\nspec: {containrs: []}", "make no pod (.*containrs"),
        ("kind: Pod\nspec: {containers: [{resorces: {}}]}", "make no pod (.*resorces"),
        ("kind: Pod\nspec: {containers: text}", "make no pod"),
        ("kind: Pod\nspec: 7", "make no pod"),
        ("kind: Pod\nmetadata: 7", "make no pod"),
        ("kind: Pod\nspec: {containers: [null]}", "make no pod"),
        ("kind: Pod\nspec: {volumes: {a: b}}", "make no pod"),
        ("\0", "cannot be read"),
    ],
)
def test_a_template_that_is_none_is_one_sentence(text: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PipelineError, match=words.replace("(", r"\(")) as raised:
        body(template=str(file))
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image": ""}, r"set gpu\.kubernetes\.image to one that has ernie_pipeline"),
        ({"gpus": 0.5}, r"gpu\.kubernetes\.gpus = 0\.5 is a part of a GPU"),
        ({"volume_claim": ""}, r"set gpu\.kubernetes\.volume_claim to the ReadWriteMany claim"),
        ({"mount_path": "/mnt"}, r"is not below gpu\.kubernetes\.mount_path = '/mnt'.*ERNIE_PIPELINE_CACHE"),
    ],
)
def test_settings_by_which_no_job_could_run_are_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        body(**settings)


def told(phase: str, state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """A pod of which the API tells so; another container beside the job's goes on."""
    containers = [{"name": "mesh", "state": {"running": {}}}, *([{"name": "job", "state": state}] if state else [])]
    annotations = {"kubectl.kubernetes.io/default-container": "job"}
    spec = {"containers": [{"name": "mesh"}, {"name": "job"}]}
    meta = {"annotations": annotations, **status.pop("meta", {})}
    return {"metadata": meta, "spec": spec, "status": {"phase": phase, "containerStatuses": containers, **status}}


def ended(code: int, reason: str, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, **more}}


TARGET = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "node is away"}
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": WAITS}
NO_IMAGE = {"waiting": {"reason": "ErrImagePull", "message": "x\ny"}}
DELETED = {"deletionTimestamp": "2026-11-28T12:00:00Z"}
INIT = [{"name": "fetch", "state": ended(3, "Error")}]


@pytest.mark.parametrize(
    ("pod", "state", "why", "exit_status", "lost"),
    [
        (told("Pending", conditions=[UNSCHEDULED]), "waiting", f"Unschedulable: {WAITS}", None, False),
        (told("Pending", NO_IMAGE), "waiting", "ErrImagePull: x y", None, False),
        (told("Running", {"waiting": {"reason": "PodInitializing"}}), "waiting", "PodInitializing", None, False),
        ({}, "waiting", "Pending", None, False),
        (told("Running", {"running": {}}), "running", "Phase", None, False),
        (told("Unknown", {"running": {}}), "running", "Phase", None, False),
        (told("Running", {"running": {}}, meta=DELETED), "running", "Phase", None, False),
        (told("Running", ended(0, "Completed")), "ended", "Completed", 0, False),
        (told("Failed", ended(1, "Error")), "ended", "Error", 1, False),
        (told("Failed", ended(137, "OOMKilled")), "ended", "OOMKilled: it took more memory", 137, True),
        (told("Failed", ended(143, "Error")), "ended", "Error", 143, True),
        (told("Failed", reason="Evicted", message="low on memory"), "ended", "Evicted: low on memory", None, True),
        (told("Failed", reason="NodeShutdown"), "ended", "NodeShutdown", None, True),
        (told("Failed", ended(1, "Error"), conditions=[TARGET]), "ended", "DeletionByTaintManager: node", None, True),
        (told("Failed", ended(1, "Error"), meta=DELETED), "ended", "deleted: its pod", None, True),
        (told("Failed", initContainerStatuses=INIT), "ended", "Error", 3, False),
        (told("Succeeded"), "ended", "Succeeded", 0, False),
    ],
)  # fmt: skip
def test_what_the_api_tells_of_a_pod_is_a_status(
    pod: dict[str, Any], state: str, why: str, exit_status: int | None, lost: bool
) -> None:
    found = standing(pod)
    assert (found.state, found.exit_status) == (state, exit_status)
    assert found.why.startswith(why if why != "Phase" else pod["status"]["phase"])
    assert Status(found.state, exit_status=found.exit_status).is_lost is lost


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


def test_the_code_location_does_not_import_its_client() -> None:
    code = "import sys, ernie_pipeline.orchestration.gpu as _; print({'kubernetes', 'dagster_k8s'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
