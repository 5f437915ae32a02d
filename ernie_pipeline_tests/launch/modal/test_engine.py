"""What the step's side says of Modal, and what goes into the bucket: by the real client as far as it comes here."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import modal
import modal.exception as errors
import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.launch.detached.engine import Unreachable
from ernie_pipeline.launch.detached.life import LOST, SUPERSEDED
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.modal.call import DEMO, HOME, call_for, placed
from ernie_pipeline.launch.modal.engine import ModalEngine
from ernie_pipeline.launch.modal.heartbeat import Heartbeat
from ernie_pipeline.launch.modal.keys import HEARTBEAT, call_key
from ernie_pipeline.launch.modal.place import CarriedPlace
from ernie_pipeline.launch.modal.stream import Receiver, Sender
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.recipe.sections import Evaluation, Quantization
from ernie_pipeline.store.row_cache import KeptRows
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.carried import forget_jobs
from ernie_pipeline.store.shared.records import packed
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.launch.modal.standin import StandIn
from ernie_pipeline_tests.store.shared.server import Server

NAME = "ernie-stage-f00d-12345678-87654321"
ANSWER = """
import sys
from pathlib import Path
from ernie_pipeline.launch.modal.engine import ModalEngine
from ernie_pipeline.store.shared.records import packed
from ernie_pipeline.utils.errors import PipelineError
try:
    ModalEngine("app", sys.argv[1], Path("/nowhere")).status("ernie-stage-f00d-12345678-")
except PipelineError as error:
    print(error)
"""


@pytest.fixture
def engine(standin: StandIn, address: str, tmp_path: Path) -> ModalEngine:
    return ModalEngine("app", address, tmp_path / "home")


def test_without_a_token_the_real_client_s_refusal_is_one_sentence(
    address: str, tmp_path: Path, server: Server
) -> None:
    environment = {"HOME": str(tmp_path), **server.environment}
    done = subprocess.run([sys.executable, "-c", ANSWER, address], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(
        "Modal does not let this machine in; make a token with `modal token new`, or set MODAL"
    )
    assert done.stdout.count("\n") == 1


def test_an_app_that_is_not_deployed_is_told_with_the_command(standin: StandIn, engine: ModalEngine) -> None:
    (standin.folder / "undeployed").touch()
    with pytest.raises(
        PipelineError, match=r"there is no app app .* deploy it with `modal deploy deploy/modal_app\.py`"
    ):
        engine.status(NAME)


@pytest.mark.parametrize("error", [errors.ConnectionError("no route"), errors.ServiceError("503")])
def test_a_modal_that_is_away_is_unreachable(
    engine: ModalEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def away(*_: object) -> None:
        raise error

    monkeypatch.setattr(modal.Function, "from_name", away)
    with pytest.raises(Unreachable, match=r"Modal does not answer .*what runs there goes on"):
        engine.status(NAME)


def test_a_bucket_that_is_away_is_unreachable(engine: ModalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("ernie_pipeline.store.shared.bucket.FIRST_S", 0.5)
    with pytest.raises(Unreachable, match="cannot be reached"):
        engine.status(NAME)
    with pytest.raises(Unreachable, match="cannot be reached"):
        engine.place(Path("/home/store/.unfinished/stage/f00d/jobs/work")).refresh()


def test_what_modal_raises_of_a_call_is_told_apart(
    engine: ModalEngine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is Python's own TimeoutError, the others are Modal's."""
    graph: list[Any] = []

    class Call:
        def __init__(self, raised: BaseException):
            self.raised = raised

        def get(self, timeout: float) -> Any:
            raise self.raised

        def get_call_graph(self) -> list[Any]:
            return graph

    def status(raised: BaseException) -> Any:
        monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: Call(raised))
        return engine.status(NAME)

    bucket.put(call_key(NAME), json.dumps({"call": "fc-1", "at": "jobs/stage-f00d/work/1"}).encode())
    assert status(TimeoutError()).state == "waiting", "nothing has been heard of it: it waits for a machine"
    bucket.put(f"jobs/stage-f00d/work/1/{HEARTBEAT}", b"{}")
    assert status(TimeoutError()).state == "running"
    assert status(errors.OutputExpiredError()).state == "unknown"
    assert status(errors.NotFoundError("no such call")).state == "unknown"
    past = status(errors.FunctionTimeoutError("Task's current input hit its timeout"))
    assert (past.state, "ran past its timeout on Modal" in past.failure) == ("ended", True)
    for lost in (errors.InternalFailure("worker lost"), errors.RemoteError("container exited"), ValueError("any")):
        assert (status(lost).is_lost, status(lost).failure) == (True, "")
    assert status(errors.InternalFailure("worker lost")).why == "InternalFailure: worker lost"
    stopped = type("Input", (), {"function_call_id": "fc-1", "status": modal.types.InputStatus.TERMINATED})
    graph.append(stopped)
    assert "was stopped on Modal by hand" in status(errors.RemoteError("")).failure
    with pytest.raises(Unreachable):
        status(errors.ConnectionError("no route"))


def test_what_the_function_itself_tells(engine: ModalEngine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(exit_status: int, output: str) -> Any:
        ended = {"exit_status": exit_status, "output": output}
        monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: type("C", (), {"get": lambda *_, **__: ended})())
        return engine.status(NAME)

    bucket.put(call_key(NAME), json.dumps({"call": "fc-1", "at": "jobs/stage-f00d/work/1"}).encode())
    crashed = status(1, "Traceback ...")
    assert (crashed.state, crashed.is_lost, crashed.output) == ("ended", False, "Traceback ...")
    assert status(-9, "").is_lost, "by the kernel's memory killer"
    denied = status(LOST, "s3://team/home: access is denied; check the credentials\n")
    assert (denied.is_lost, denied.why) == (True, "s3://team/home: access is denied; check the credentials")
    assert status(SUPERSEDED, "").state == "unknown", "another start of it may be at work"


def test_a_home_on_a_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path))
    jobs = GpuResource(launcher="modal").jobs
    assert jobs
    with pytest.raises(PipelineError, match=r'gpu\.launcher is "modal", whose containers .* a bucket\'s address'):
        jobs.launcher()


def test_without_the_package_the_launcher_says_what_to_install(
    engine: ModalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(PipelineError, match=r'gpu\.launcher is "modal", but Modal is not installed here; .*\[modal\]'):
        engine.status(NAME)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """An evaluation of an adapter, all of whose places are in the home."""
    store = tmp_path / "home" / "store"
    spec = ModelSpec(
        backend="peft",
        base=BaseCheckpoint(name="demo", checkpoint=str(BASE)),
        quantization=Quantization(),
        adapter=store / "qlora_adapter" / "abc1" / "adapter",
        quantized_bases=store / ".bases",
    )
    job = EvaluationJob(
        spec=spec,
        evaluation=Evaluation(),
        rows=KeptRows(folder=store / ".rows" / "0123", about={"inputs": {"base_model": "sha256:1"}}),
        split=store / "math_split" / "abc2",
        out=tmp_path / "anywhere",
    )
    state = store / ".unfinished" / "base_evaluation" / "abc3"
    return Launch(work="evaluation", job=job, threads=1, key="base_evaluation-abc3", state=state)


def test_a_job_s_paths_mean_the_same_on_the_other_side(launch: Launch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    call = call_for(launch, home, 1, {"TRITON_CACHE_DIR": f"{home}/store/.compiled", "DAGSTER_PIPES_CONTEXT": "abc"})
    assert call.artifacts() == [("math_split", "abc2"), ("qlora_adapter", "abc1")]
    assert call.state == "store/.unfinished/base_evaluation/abc3"
    assert str(tmp_path) not in call.model_dump_json()
    places = {"store/.bases": Path("/vol/bases"), "store/.compiled": Path("/vol/compiled"), "": Path("/cache")}
    job = EvaluationJob.model_validate(placed(call.job, places))
    assert job.split == Path("/cache/store/math_split/abc2")
    assert job.spec.adapter == Path("/cache/store/qlora_adapter/abc1/adapter")
    assert job.spec.quantized_bases == Path("/vol/bases")
    assert job.spec.base.checkpoint == str(BASE)
    assert call.job["spec"]["base"]["checkpoint"] == DEMO  # type: ignore[call-overload, index]
    assert job.rows
    assert job.rows.folder == Path("/cache/store/.rows/0123")
    assert placed(call.variables, places) == {"TRITON_CACHE_DIR": "/vol/compiled", "DAGSTER_PIPES_CONTEXT": "abc"}
    assert placed(f"{HOME}store/.basest", places) == "/cache/store/.basest"


def test_a_base_model_or_a_folder_of_this_machine_is_one_sentence(launch: Launch, tmp_path: Path) -> None:
    job, home = launch.job, tmp_path / "home"
    local = job.spec.model_copy(update={"base": BaseCheckpoint(name="mine", checkpoint="/mine")})  # type: ignore[attr-defined]
    mine = replace(launch, job=job.model_copy(update={"spec": local}))
    with pytest.raises(PipelineError, match=r"base_model\.name = '/mine' is a folder of this machine.* to a hub id"):
        call_for(mine, home, 1, {})
    hub = local.model_copy(update={"base": BaseCheckpoint(name="a/b", checkpoint="a/b", revision="0" * 40)})
    assert call_for(replace(launch, job=job.model_copy(update={"spec": hub})), home, 1, {}).job["spec"]["base"] == {  # type: ignore[call-overload, index]
        **hub.base.model_dump(mode="json")
    }
    elsewhere = replace(launch, job=job.model_copy(update={"split": Path("/elsewhere")}))
    with pytest.raises(PipelineError, match=r"split = '/elsewhere' is not in the home"):
        call_for(elsewhere, home, 1, {})


def test_other_libraries_than_the_step_s_are_noticed(launch: Launch, tmp_path: Path) -> None:
    call = call_for(launch, tmp_path / "home", 1, {})
    assert call.other_library() == ""
    assert call.model_copy(update={"libraries": {**call.libraries, "torch": "1.0"}}).other_library() == "torch"


def test_lines_arrive_once_and_in_order_though_objects_are_written_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, receiver = tmp_path / "messages", Receiver(bucket)

    def received() -> bytes:
        return receiver.receive("job/1", bucket.list("job/1"))

    first = Sender("job/1/0001", file)
    file.write_bytes(b"one\ntwo\nhal")
    first.send(bucket)
    assert received() == b"one\ntwo\n"
    file.write_bytes(b"one\ntwo\nhalf\n")
    first.send(bucket)
    file.write_bytes(b"one\ntwo\nhalf\nthree\n")
    first.send(bucket)
    first.send(bucket)
    assert [*bucket.list("job/1")] == ["0001/messages.000000000000"]
    monkeypatch.setattr("ernie_pipeline.launch.modal.stream.ENOUGH_BYTES", 3)
    assert received() == b"half\nthree\n"
    file.write_bytes(b"after\n")
    Sender("job/1/0002", file).send(bucket)
    assert (received(), received()) == (b"after\n", b"")
    second = Sender("job/1/0003", file)
    for text in (b"a\n", b"a\nbc\n", b"a\nbc\ndef\n", b"a\nbc\ndef\ng\n"):
        file.write_bytes(text)
        second.send(bucket)
    assert len(bucket.list("job/1/0003")) == 3
    assert (received(), received()) == (b"a\nbc\ndef\ng\n", b"")
    assert Receiver(bucket).receive("job/1", bucket.list("job/1")) == (b"one\ntwo\nhalf\nthree\nafter\na\nbc\ndef\ng\n")


def test_of_two_starts_the_later_one_beats_and_none_once_another_attempt_has_the_job(bucket: Bucket) -> None:
    first, second, third = (Heartbeat(bucket, "job/1") for _ in range(3))
    assert first.take()
    assert first.beat(5.0)
    assert second.take()
    assert (first.start, second.start, second.spent_s) == (1, 2, 5.0)
    assert not first.beat(6.0)
    assert not first.beat(7.0)
    assert second.beat(2.0)
    bucket.put(f"job/1/{HEARTBEAT}", b"superseded")
    assert not second.beat(3.0)
    assert not third.take()


def test_a_beat_whose_answer_was_lost_is_known_as_one_s_own(bucket: Bucket, server: Server) -> None:
    heartbeat = Heartbeat(bucket, "job/1")
    assert heartbeat.take()
    impatient = Heartbeat(Bucket(bucket.address, patience_s=0.05), "job/1")
    assert impatient.take()
    server.fail({"kind": "lost", "match": "PUT", "times": 3})
    with pytest.raises(PipelineError, match="cannot be reached"):
        impatient.beat(1.0)
    server.fail()
    assert impatient.beat(2.0)


def test_two_steps_do_not_both_begin_and_what_is_published_is_forgotten(bucket: Bucket, tmp_path: Path) -> None:
    def place(machine: str) -> CarriedPlace:
        folder = tmp_path / machine / "store" / ".unfinished" / "stage" / "f00d" / "jobs" / "work"
        place = CarriedPlace(folder, bucket)
        place.refresh()
        return place

    one, other = place("one"), place("other")
    assert one.address == other.address
    first = one.begin(anew=True)
    with pytest.raises(PipelineError, match="another step has taken this job over"):
        other.begin(anew=True)
    third = place("third")
    assert third.attempt == first.name
    second = third.begin(anew=False)
    assert not Heartbeat(bucket, f"{one.below}/{first.name}").take()
    assert Heartbeat(bucket, f"{one.below}/{second.name}").take()
    assert place("fourth").number == 2
    forget_jobs(bucket, ("stage", "f00d"))
    assert bucket.list("jobs") == {}


def test_a_record_whose_answer_was_lost_is_known_as_the_step_s_own(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "store" / ".unfinished" / "stage" / "f00d" / "jobs" / "work"
    place = CarriedPlace(folder, Bucket(bucket.address, patience_s=0.05))
    place.refresh()
    place.begin(anew=True)
    for _ in range(2):
        server.fail({"kind": "lost", "match": "PUT .*record", "times": 3})
        with pytest.raises(Unreachable, match="cannot be reached"):
            place.begin(anew=False)
        server.fail()
    attempt = place.begin(anew=False)
    following = CarriedPlace(folder, bucket)
    following.refresh()
    assert following.attempt == attempt.name


def test_what_comes_damaged_each_time_is_a_sentence_and_to_the_next_step_not_done(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ernie_pipeline.launch.modal.place.PAUSE_S", 0)
    folder = tmp_path / "store" / ".unfinished" / "stage" / "f00d" / "jobs" / "work"
    place = CarriedPlace(folder, bucket)
    place.refresh()
    at = f"{place.below}/{place.begin(anew=True).name}"
    entry = {"size": 4, "sha256": hashlib.sha256(b"whole"[:4]).hexdigest()}
    bucket.put(f"{at}/0001/out/made", b"torn")
    bucket.put(f"{at}/sealed", packed({"start": "0001", "files": {"made": entry}}))
    with pytest.raises(PipelineError, match=r"what work made is not in s3://.* as it was sealed \(made\); run again"):
        place.refresh()
    assert not place.sealed
    bucket.put(f"{at}/sealed", packed({"start": "0001", "files": {"../../made": entry}}))
    with pytest.raises(PipelineError, match=r"as it was sealed \(sealed\)"):
        place.refresh()
    following = CarriedPlace(folder, bucket)
    following.refresh()
    assert not following.intact()
    bucket.put(f"{at}/0001/out/made", b"whol")
    bucket.put(f"{at}/sealed", packed({"start": "0001", "files": {"made": entry}}))
    following.refresh()
    assert following.intact()
