"""Modal as an engine: a call of the deployed function for each attempt, followed by its number.

What `FunctionCall.get(timeout=0)` of modal 1.6 raises, by its source (`_functions.py`, `_utils/function_utils.py`):
Python's own TimeoutError while there is no output, also while Modal starts a function again that it preempted;
OutputExpiredError seven days after the end; FunctionTimeoutError past the function's `timeout`; InternalFailure for
what Modal lost; RemoteError without an error of the function's own, such as after a crash or a cancellation; else
whatever the function raised, and `container.run` raises nothing.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ernie_pipeline.launch.detached.engine import Status, Unreachable
from ernie_pipeline.launch.detached.life import LOST, SUPERSEDED
from ernie_pipeline.launch.envelope import Envelope
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.modal.call import call_for
from ernie_pipeline.launch.modal.keys import CALL, HEARTBEAT, call_key
from ernie_pipeline.launch.modal.place import PATIENCE_S, CarriedPlace
from ernie_pipeline.store.shared.bucket import Bucket, BucketError
from ernie_pipeline.utils.errors import PipelineError, first_line

FUNCTION = "run"
DEPLOY = "modal deploy deploy/modal_app.py"
NAME_IN_APP = "ERNIE_PIPELINE_MODAL_APP"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ModalEngine:
    """The deployed app. `address`: of the bucket that is the home, `home` its cache on this machine."""

    app: str
    address: str
    home: Path
    _places: dict[Path, CarriedPlace] = field(default_factory=dict, init=False, repr=False, compare=False)
    _buckets: list[Bucket] = field(default_factory=list, init=False, repr=False, compare=False)
    _functions: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)
    _calls: dict[str, dict[str, str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _begun: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return f"the app {self.app} on Modal"

    def place(self, folder: Path) -> CarriedPlace:
        """The job's folder, carried through the bucket."""
        place = CarriedPlace(folder, self._bucket)
        self._places[place.folder] = place
        return place

    def submit(self, name: str, launch: Launch, job_file: Path, variables: dict[str, str]) -> None:
        """Start the job, see `Engine.submit`: it is written into the bucket, and the function told where it is."""
        place = self._places[job_file.parent]
        attempt = Envelope.model_validate_json(job_file.read_bytes()).attempt
        assert attempt is not None
        call = call_for(launch, self.home, place.number, variables)
        at = f"{place.below}/{attempt.name}"
        body = call.model_dump_json().encode()
        given = (self.address, place.below, attempt.name, hashlib.sha256(body).hexdigest())
        self._reach(lambda: self._bucket.put(f"{at}/{CALL}", body))
        self._check_app()
        spawned = self._ask(lambda _: self._functions[0].spawn(*given))
        self._calls[name] = {"call": spawned.object_id, "at": at}
        self._reach(lambda: self._bucket.put(call_key(name), json.dumps(self._calls[name]).encode()))

    def status(self, name: str) -> Status:
        """What Modal knows of the call, see `Engine.status`."""
        noted = self._noted(name)
        if not noted:
            self._check_app()
            return Status("unknown")
        modal = _modal()
        errors = modal.exception
        try:
            ended = self._ask(lambda modal: modal.FunctionCall.from_id(noted["call"]).get(timeout=0))
        except TimeoutError:
            return Status("running" if self._has_begun(noted["at"]) else "waiting")
        except (errors.OutputExpiredError, errors.NotFoundError):
            return Status("unknown")
        except errors.FunctionTimeoutError:
            return Status("ended", failure=_past_timeout(name))
        except PipelineError:  # of this end
            raise
        except Exception as error:  # it crashed, or was lost, before it could tell
            if self._was_cancelled(noted["call"]):
                failure = f"{name} was stopped on Modal by hand; run again: it goes on from what it has saved"
                return Status("ended", failure=failure)
            return Status("ended", f"{type(error).__name__}: {first_line(error)}"[:300])
        exit_status, output = ended["exit_status"], str(ended["output"])
        if exit_status == SUPERSEDED:  # by another start of it, if it is still heard of
            return Status("unknown")
        why = output.strip() if exit_status == LOST else ""  # then a sentence
        return Status("ended", why or f"exit status {exit_status}", exit_status, output)

    def stop(self, name: str) -> None:
        """Cancel the call: its container is interrupted, saves, and is not started again."""
        if noted := self._noted(name):
            try:
                self._ask(lambda modal: modal.FunctionCall.from_id(noted["call"]).cancel())
            except PipelineError:
                raise
            except Exception:  # it has ended
                return

    @property
    def _bucket(self) -> Bucket:
        if not self._buckets:
            self._buckets.append(Bucket(self.address, PATIENCE_S))
        return self._buckets[0]

    def _noted(self, name: str) -> dict[str, str]:
        """Modal's own name of the call, and where its attempt is; {} for a call that nobody noted."""
        if name not in self._calls and (there := self._reach(lambda: self._bucket.get(call_key(name)))):
            self._calls[name] = json.loads(there.body)
        return self._calls.get(name, {})

    def _check_app(self) -> None:
        """Once: a job that nobody knows is about to be submitted."""
        if not self._functions:
            self._functions.append(self._ask(lambda modal: _function(modal, self.app)))

    def _has_begun(self, at: str) -> bool:
        """Whether the function has been heard of: until then it waits for a machine, which may take long."""
        if at not in self._begun and self._reach(lambda: self._bucket.get(f"{at}/{HEARTBEAT}")):
            self._begun.add(at)
        return at in self._begun

    def _was_cancelled(self, call: str) -> bool:
        try:
            graph = self._ask(lambda modal: modal.FunctionCall.from_id(call).get_call_graph())
        except Exception:
            return False
        return any(each.status.name == "TERMINATED" for each in graph if each.function_call_id == call)

    def _reach(self, request: Callable[[], Answer]) -> Answer:
        try:
            return request()
        except BucketError as error:
            raise Unreachable(str(error)) from error

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        """What Modal answers; its refusals as sentences, and the rest as it raises it."""
        modal = _modal()
        errors = modal.exception
        try:
            return question(modal)
        except (errors.ConnectionError, errors.ServiceError, errors.InternalError, errors.ClientClosed) as error:
            raise Unreachable(
                f"Modal does not answer ({first_line(error)[:200]}); check the network and https://status.modal.com; "
                "what runs there goes on, and the same command finds it again"
            ) from error
        except (errors.AuthError, errors.PermissionDeniedError) as error:
            raise PipelineError(
                "Modal does not let this machine in; make a token with `modal token new`, or set MODAL_TOKEN_ID and "
                f"MODAL_TOKEN_SECRET ({first_line(error)[:100]})"
            ) from error
        except errors.VersionError as error:
            raise PipelineError(f"Modal refuses this version of its package: {first_line(error)[:200]}") from error


def _function(modal: Any, app: str) -> Any:
    function = modal.Function.from_name(app, FUNCTION)
    try:
        function.hydrate()
    except modal.exception.NotFoundError as error:
        raise PipelineError(
            f"there is no app {app} with the function {FUNCTION} on Modal; deploy it with `{DEPLOY}` (of another name: "
            f"{NAME_IN_APP}={app} {DEPLOY})"
        ) from error
    return function


def _past_timeout(name: str) -> str:
    return (
        f"{name} ran past its timeout on Modal; deploy the app with a longer ERNIE_PIPELINE_MODAL_TIMEOUT_S, or run "
        "again: it goes on from what it has saved"
    )


def _modal() -> Any:
    try:
        import modal
        import modal.exception
    except ImportError as error:
        raise PipelineError(
            'gpu.launcher is "modal", but Modal is not installed here; install ernie_pipeline[modal], or set '
            'gpu.launcher to "local"'
        ) from error
    return modal
