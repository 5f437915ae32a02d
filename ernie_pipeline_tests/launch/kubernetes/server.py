"""The stand-in of the Kubernetes API on loopback. See CONTRACT.md."""

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ernie_pipeline_tests.launch.kubernetes.cluster import Cluster, Object, Pod

NAMESPACE, TOKEN = "ernie", "the-token"
DNS_1123 = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile("([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
PAGE = b"<html><head><title>Sign in</title></head><body>Sign in to go on</body></html>"
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    422: "Invalid",
}

Fault = Callable[[str, str], int | str]
"""Of a request's method and path: a status that is answered in the place of the answer, "reset", "html 200", or ""."""


class No(Exception):
    """A refusal: its code, and in `str` its message."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class Api:
    """The server; `fault` and `forbidden`, pairs of verb and resource, may be changed while it runs."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.cluster, self.folder = Cluster(folder), folder
        self.fault: Fault = lambda method, path: ""
        self.forbidden: set[tuple[str, str]] = set()
        self.quota = ""
        self.requests: list[str] = []
        self.port = 0
        self.server: ThreadingHTTPServer | None = None
        self.up()
        self.kubeconfig = write_kubeconfig(folder / "config", self.port)

    def up(self) -> None:
        """Listen, at the same port again after `down`."""
        api = self

        class Handler(_Handler):
            owner = api

        class Server(ThreadingHTTPServer):
            allow_reuse_address, daemon_threads = True, True

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def down(self) -> None:
        """Refuse connections, while the pods go on."""
        if self.server:
            self.server.shutdown()
            self.server.server_close()
        self.server = None

    def close(self) -> None:
        """End everything."""
        self.down()
        self.cluster.close()

    @contextmanager
    def faulty(self, fault: int | str) -> Iterator[None]:
        """Meanwhile each request is answered so."""
        self.fault = lambda method, path: fault
        try:
            yield
        finally:
            self.fault = lambda method, path: ""

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Code and object, or text."""
        found = re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+))?(/log)?", path)
        if not found:
            raise No(404, "the server could not find the requested resource")
        namespace, name, log = found.groups()
        verb = {"POST": "create", "DELETE": "delete", "GET": "get" if name else "list"}[method]
        resource = "pods/log" if log else "pods"
        if (verb, resource) in self.forbidden:
            who = 'User "system:serviceaccount:ernie:steps"'
            what = f'resource "{resource}" in API group "" in the namespace "{namespace}"'
            raise No(403, f"{resource} is forbidden: {who} cannot {verb} {what}")
        with self.cluster.lock:
            if method == "POST":
                return 201, self._create(namespace, body).object
            if name is None:
                return 200, {"kind": "PodList", "apiVersion": "v1", "items": self._listed(query)}
            if namespace != NAMESPACE or name not in self.cluster.pods:
                raise No(404, f'pods "{name}" not found')
            pod = self.cluster.pods[name]
            if log:
                return 200, self._log(pod, query)
            if method == "DELETE":
                self.cluster.delete(name, (body or {}).get("gracePeriodSeconds"))
            return 200, pod.object

    def _create(self, namespace: str, body: Any) -> Pod:
        if namespace != NAMESPACE:
            raise No(404, f'namespaces "{namespace}" not found')
        check_pod(body)
        name = body["metadata"]["name"]
        if self.quota:
            raise No(403, f'pods "{name}" is forbidden: exceeded quota: {self.quota}')
        if name in self.cluster.pods:
            raise No(409, f'pods "{name}" already exists')
        return self.cluster.add(body)

    def _listed(self, query: dict[str, str]) -> list[Object]:
        wanted = dict(each.split("=") for each in query.get("labelSelector", "").split(",") if each)
        pods = [pod.object for pod in self.cluster.pods.values()]
        return [pod for pod in pods if wanted.items() <= pod["metadata"].get("labels", {}).items()]

    def _log(self, pod: Pod, query: dict[str, str]) -> bytes:
        if pod.node_lost:
            raise No(500, 'Get "https://10.0.0.7:10250/containerLogs": dial tcp 10.0.0.7:10250: i/o timeout')
        if query.get("container") != pod.container["name"]:
            raise No(400, f"container {query.get('container')} is not valid for pod {pod.name}")
        if pod.process is None:
            raise No(400, f'container "{pod.container["name"]}" is waiting to start: ContainerCreating')
        lines = pod.log.read_bytes().splitlines(keepends=True)
        return b"".join(lines[-int(query.get("tailLines", len(lines))) :] if lines else [])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # see `registry/publish/hub.py`
    owner: Api

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.owner.requests.append(f"{self.command} {self.path}")
        fault = self.owner.fault(self.command, url.path)
        if fault == "reset" or self.owner.server is None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if isinstance(fault, str) and fault.startswith("html"):
            self._send(int(fault.split()[1]), "text/html", PAGE)
            return
        try:
            if fault:
                raise No(int(fault), "etcdserver: request timed out, or the like")
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise No(401, "Unauthorized")
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            code, answer = self.owner.answer(self.command, url.path, query, json.loads(body) if body else None)
        except No as no:
            code, answer = no.code, status_object(no.code, str(no))
        kind = "text/plain" if isinstance(answer, bytes) else "application/json"
        self._send(code, kind, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    do_GET = do_POST = do_DELETE = _serve

    def _send(self, code: int, kind: str, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


def status_object(code: int, message: str) -> Object:
    """The API's `Status` for what is refused."""
    reason = REASONS.get(code, "InternalError")
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason, "code": code}


def check_pod(pod: Any) -> None:
    """Raise `No` for a pod that the API would not take."""
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
    from kubernetes.client import V1Pod

    if not isinstance(pod, dict) or pod.get("kind") != "Pod" or pod.get("apiVersion") != "v1":
        raise No(400, "the object provided is unrecognized")
    try:
        k8s_model_from_dict(V1Pod, k8s_snake_case_dict(V1Pod, pod))
    except Exception as error:
        raise No(400, f"strict decoding error: {error}") from error
    if problem := _invalid(pod["metadata"], pod["spec"]):
        raise No(422, f'Pod "{pod["metadata"].get("name")}" is invalid: {problem}')


def _invalid(meta: Object, spec: Object) -> str:
    name, labels = str(meta.get("name")), meta.get("labels", {})
    if not DNS_1123.fullmatch(name) or len(name) > 63:
        return "metadata.name: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters"
    if wrong := [value for value in labels.values() if not LABEL.fullmatch(value) or len(value) > 63]:
        return f"metadata.labels: Invalid value: {wrong[0]!r}"
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    if len(volumes) > len(set(volumes)):
        return "spec.volumes: Duplicate value"
    for container in spec["containers"]:
        if not container.get("image"):
            return "spec.containers[0].image: Required value"
        mounts = container.get("volumeMounts", [])
        if wrong := [mount["name"] for mount in mounts if mount["name"] not in volumes]:
            return f"spec.containers[0].volumeMounts[0].name: Not found: {wrong[0]!r}"
        if len(mounts) > len({mount["mountPath"] for mount in mounts}):
            return "spec.containers[0].volumeMounts[1].mountPath: Invalid value: must be unique"
        amounts = container.get("resources", {})
        gpus = {kind: amounts.get(kind, {}).get("nvidia.com/gpu") for kind in ("requests", "limits")}
        if gpus["requests"] != gpus["limits"]:
            problem = "Required value: Limit must be set for non overcommitable resources"
            return f"spec.containers[0].resources.limits: {problem}"
        if [each for each in container.get("env", []) if not isinstance(each.get("value", ""), str)]:
            return "spec.containers[0].env: Invalid value"
    return ""


def write_kubeconfig(file: Path, port: int) -> Path:
    """The file by which the client finds this server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "steps", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "here", "user": "steps", "namespace": NAMESPACE}}],
        "current-context": "test",
    }
    file.write_text(json.dumps(config), encoding="utf-8")
    return file
