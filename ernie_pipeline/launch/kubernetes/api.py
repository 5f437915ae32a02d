"""The few requests to the Kubernetes API, and what counts as its answer.

Through the client's `ApiClient`, not its typed methods (36.0): those take apart logs that happen to be JSON, and fail
in ways of their own on what is none of the API's answers, such as a proxy's page.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ernie_pipeline.launch.detached.engine import Unreachable
from ernie_pipeline.utils.errors import PipelineError, first_line

CONNECT_S, ANSWER_S = 5.0, 15.0
"""Meanwhile nobody looks at the job."""
TRY_AGAIN = (401, 408, 410, 429)
"""Besides 5xx. A login that is refused to a step that follows a job says nothing of the job."""
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NOT_INSTALLED = (
    'gpu.launcher is "kubernetes", but its client is not installed here; install ernie_pipeline[kubernetes], or set '
    'gpu.launcher to "local"'
)
GOES_ON = "what runs there goes on, and the same command finds it again"


class Refused(Exception):
    """The API's own no: its HTTP status, and in `str` its own words."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Api:
    """The cluster of `context` in the file `kubeconfig`, or the one that this process runs in; of it one namespace."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    _clients: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return "Kubernetes" + (f" ({self.context})" if self.context else "")

    @property
    def home(self) -> str:
        """The namespace. Raises `PipelineError` where there is no kubeconfig."""
        return self.namespace or str(self._client()[1])

    def connect(self) -> None:
        """Raise `PipelineError` where the client is not installed, or knows no cluster."""
        self._client()

    def ask(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None, *, right: str = ""
    ) -> dict[str, Any]:
        """The API's object at `path`, below the namespace's. Raises `Refused`, and `Unreachable` for what is no answer.

        `right`: what it takes, such as "get pods": named where it is refused to who only follows a job.
        """
        return _object(self.read(method, path, query, body, right=right), self.title)

    def read(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None, *, right: str = ""
    ) -> bytes:
        """The same as bytes, whatever they are."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        client, _ = self._client()
        headers, parameters = {"Accept": "application/json", "Content-Type": "application/json"}, list[Any]()
        client.update_params_for_auth(headers, parameters, ["BearerToken"])
        url = f"{client.configuration.host}/api/v1/namespaces/{self.home}/{path}"
        try:
            answer = client.request(
                method,
                url,
                query_params=[*parameters, *(query or {}).items()],
                headers=headers,
                body=body,
                _request_timeout=(CONNECT_S, ANSWER_S),
            )
        except ApiException as error:
            raise self._no(error, right) from error
        except (HTTPError, OSError) as error:
            raise Unreachable(
                f"{self.title} does not answer ({type(error).__name__}); see that the API of its kubeconfig, or of "
                f"gpu.kubernetes.kubeconfig and context, can be reached; {GOES_ON}"
            ) from error
        return bytes(answer.data)

    def _no(self, error: Any, right: str) -> Exception:
        """What an answer that is no success means: only a `Status` of the API's own is its word."""
        status, body = int(error.status or 0), error.body
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or error.reason or "")
        try:
            told = json.loads(text)
            words = str(told["message"]) if told["kind"] == "Status" else ""
        except (ValueError, KeyError, TypeError):
            words = ""
        if words and right and status == 403:
            return Unreachable(f"{missing_right(self.title, right, self.home, words)}; {GOES_ON}")
        if not words or status >= 500 or status in TRY_AGAIN:
            answers = f"{self.title} answers with HTTP {status} ({words or first_line(Exception(text))[:200]})"
            return Unreachable(f"{answers}; {GOES_ON}")
        return Refused(status, words)

    def _client(self) -> tuple[Any, str]:
        """The client and the namespace that its kubeconfig or this pod's own account names."""
        if not self._clients:
            self._clients.append(_connected(self.kubeconfig, self.context))
        found: tuple[Any, str] = self._clients[0]
        return found


def missing_right(title: str, right: str, namespace: str, words: str) -> str:
    """What to say where the account may not do something."""
    return (
        f'{title} does not let this account {right} in namespace "{namespace}" ({words}); give its role that right, as '
        "deploy/kubernetes/rbac.yaml does"
    )


def _object(data: bytes, title: str) -> dict[str, Any]:
    try:
        told = json.loads(data)
        if isinstance(told, dict) and "kind" in told:
            return told
    except ValueError:
        pass
    page = first_line(Exception(data.decode("utf-8", "replace")))[:200]
    raise Unreachable(f"{title} answers with what is not of the Kubernetes API ({page}); {GOES_ON}")


def _connected(kubeconfig: str, context: str) -> tuple[Any, str]:
    try:
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException
        from yaml import YAMLError
    except ImportError as error:
        raise PipelineError(NOT_INSTALLED) from error
    settings, namespace = client.Configuration(), ""
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not kubeconfig and not context:
            config.load_incluster_config(client_configuration=settings)
            namespace = OWN_NAMESPACE.read_text().strip()
        else:
            file, name = kubeconfig or None, context or None
            config.load_kube_config(config_file=file, context=name, client_configuration=settings)
            contexts, active = config.list_kube_config_contexts(config_file=file)
            chosen = next((each for each in contexts if each["name"] == name), active) if name else active
            namespace = (chosen.get("context") or {}).get("namespace") or ""
    except (ConfigException, YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(
            f"the kubeconfig does not say how to reach a cluster ({first_line(error)}); set gpu.kubernetes.kubeconfig "
            "and context to one that does"
        ) from error
    settings.retries = 1  # of a connection that broke; more patience is the follower's
    return client.ApiClient(settings), namespace or "default"
