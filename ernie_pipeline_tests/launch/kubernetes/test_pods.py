"""A pod's name and manifest, and what its status means: no job runs here."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.launch.detached.engine import Status
from ernie_pipeline.launch.kubernetes.pod import PodSettings, build_label, pod_body, pod_name
from ernie_pipeline.launch.kubernetes.standing import standing
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.launch.children import ChildJob, work_in
from ernie_pipeline_tests.launch.kubernetes.cluster import expanded
from ernie_pipeline_tests.launch.kubernetes.server import DNS_1123, check_pod

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
        (told("Failed", ended(1, "Error")), "ended", "Error: exit status 1", 1, False),
        (told("Failed", ended(137, "OOMKilled")), "ended", "OOMKilled: it took more memory", 137, True),
        (told("Failed", ended(143, "Error")), "ended", "Error: exit status 143", 143, True),
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
