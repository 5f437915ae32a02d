import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.recipe.signing import Signing
from ernie_pipeline.registry import lookup
from ernie_pipeline.registry.figures import TABLE, from_rows
from ernie_pipeline.registry.gate import Candidate, Champion
from ernie_pipeline.registry.load_back import LoadedBack
from ernie_pipeline.registry.register import _champion, register
from ernie_pipeline.registry.registration import Registration, RegistrationRequest
from ernie_pipeline.registry.run_log import read_table
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.utils.address import local_folder, sqlite_file
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.text_table import human_size
from ernie_pipeline_tests.registry.conftest import QUESTION, SPEC, SPLIT

Make = Callable[..., RegistrationRequest]
LATE = "loss_objective"


@pytest.fixture(scope="module")
def client(make_request: Make) -> Iterator[Any]:
    with connected(make_request().tracking_uri) as client:
        yield client


@pytest.fixture
def loaded_back_before(registered: Registration, computed: list[LoadedBack], monkeypatch: pytest.MonkeyPatch) -> None:
    """A further version of the same adapter computes what the first one did, in a process of ten seconds."""
    monkeypatch.setattr("ernie_pipeline.registry.register.load_back", lambda request, folder: computed[0])


def aliases(client: Any, model: str = "ernie-math") -> dict[str, str]:
    return {k: str(v) for k, v in client.get_registered_model(model).aliases.items()}


def newest_run(client: Any, experiment_id: str) -> Any:
    own = "tags.model = 'adapter'"
    return client.search_runs([experiment_id], own, order_by=["attributes.start_time DESC"], max_results=1)[0]


def run_beside(client: Any, registered: Registration) -> Any:
    """The base model's."""
    [run] = client.search_runs([registered.experiment_id], f"tags.adapter_run = '{registered.run_id}'")
    return run


def test_the_first_one_past_the_gate_is_challenger_and_champion(registered: Registration, client: Any) -> None:
    assert registered.promoted
    assert registered.model_uri == "models:/ernie-math/1"
    assert aliases(client) == {"challenger": "1", "champion": "1"}
    assert registered.max_logit_difference < 1e-3
    assert len(registered.answer) > 0


def test_what_it_does_is_told_as_it_goes(registered: Registration, told: list[str]) -> None:
    said = "\n".join(told)
    files = len(registered.files)
    size = human_size(sum(entry["size"] for entry in registered.files.values()))
    parts = [
        r"opening the registry at sqlite:.*",
        rf"{files} files, {re.escape(size)}, are hashed; uploading them",
        r"uploaded; logging figures, curves, tables and pictures",
        r"loading models:/ernie-math/1 back in a process of its own",
        r"models:/ernie-math/1, loaded back, answers; \d+ logits compared .* differ by up to \S+, tolerated are 0\.001",
        r"asking the gate",
    ]
    assert re.fullmatch("\n".join(parts), said), said


def test_the_run_has_parameters_figures_curves_and_tags(registered: Registration, client: Any) -> None:
    run = client.get_run(registered.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lora.rank": "4", "training.learning_rate": "0.0002"}
    single = {name: value for name, value in run.data.metrics.items() if not name.startswith("training/")}
    assert single == {"accuracy": 0.9, "comparison/gain": 0.05, "cost/gpu_seconds": 7.5}, "a chart of a bar for each"
    rows = {row["figure"]: row for row in read_table(client, registered.run_id, TABLE) or []}
    assert rows["comparison/gain"] == {"figure": "comparison/gain", "value": 0.05, "low": 0.02, "high": 0.08}
    assert (rows["by_kind/integer/rows"]["value"], rows["comparison/p_value"]["low"]) == (2, "")
    history = {name: client.get_metric_history(registered.run_id, f"training/{name}") for name in ("loss", LATE)}
    assert [(m.step, m.value) for m in history["loss"]] == [(10, 1.5), (20, 1.2)]
    assert [(m.step, m.value) for m in history[LATE]] == [(20, 1.3)]
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert tags == {
        "model": "adapter",
        "base_model": "demo",
        "data_set": "demo",
        "trained_on": "answers",
        "dagster.run_id": "r1",
        "fingerprint": "f" * 16,
        "gate.promoted": "true",
        "registered_version": "1",
    }
    note = run.data.tags["mlflow.note.content"]
    assert "| accuracy | 85.0 % | 90.0 % |" in note
    page = "#/models/ernie-math/versions/1?workflowType=machine_learning"
    assert f"[ernie-math, version 1]({page}). Gate passed: The gain over" in note


def test_the_base_model_has_a_run_and_a_logged_model_with_the_same_figures_by_the_same_names(
    registered: Registration, client: Any
) -> None:
    adapter, base = client.get_run(registered.run_id), run_beside(client, registered)
    assert (base.info.status, base.data.tags["model"]) == ("FINISHED", "base")
    assert base.data.metrics == {"accuracy": 0.85}
    assert {*base.data.metrics} < {*adapter.data.metrics}
    assert from_rows(read_table(client, base.info.run_id, TABLE) or []) == {"accuracy": 0.85, "by_kind/integer/rows": 2}
    models = client.search_logged_models([registered.experiment_id])
    ours = {m.source_run_id: m for m in models if m.source_run_id in (registered.run_id, base.info.run_id)}
    assert {(m.model_type, str(m.status)) for m in ours.values()} == {
        ("LoRA adapter", "READY"),
        ("base model", "READY"),
    }
    for run in (adapter, base):
        told = {m.key: (m.value, m.dataset_name, m.dataset_digest) for m in ours[run.info.run_id].metrics}
        assert told["accuracy"] == (run.data.metrics["accuracy"], "demo/eval", "d" * 36)
        assert not any(name.startswith(("cost/", "training/")) for name in told)


def test_pictures_tables_and_the_whole_recipe_are_files_of_the_run(registered: Registration, client: Any) -> None:
    assert {file.path for file in client.list_artifacts(registered.run_id)} == {
        "answers.json",
        "answers_gained.json",
        "figures.json",
        "loss_curve.png",
        "model_card.md",
        "predictions.parquet",
        "recipe.json",
    }
    tag = client.get_run(registered.run_id).data.tags["mlflow.loggedArtifacts"]  # by it the page shows a table
    tables = ("answers.json", "figures.json", "answers_gained.json")
    assert json.loads(tag) == [{"path": name, "type": "table"} for name in tables]
    [row] = client.load_table(registered.experiment_id, "answers_gained.json", [registered.run_id]).to_dict("records")
    assert (row["question"], str(row["adapter's answer"])) == (QUESTION, "42")
    runs = [registered.run_id, run_beside(client, registered).info.run_id]
    both = client.load_table(registered.experiment_id, "answers.json", runs, ["run_id"]).to_dict("records")
    assert {row["run_id"]: row["answer"] for row in both} == dict(zip(runs, ("It is 42.", "It is 41."), strict=True))


def test_the_card_of_the_run_begins_with_its_title_and_loads_this_version(
    registered: Registration, client: Any, tmp_path: Path
) -> None:
    card = Path(client.download_artifacts(registered.run_id, "model_card.md", str(tmp_path))).read_text()
    assert card.startswith("# ernie-math\n"), "MLflow's page shows a YAML header as a list, and its end as a heading"
    described = client.get_model_version("ernie-math", registered.version).description
    for text in (card, described):
        assert 'load_model("models:/ernie-math/1")' in text
        assert 'serve -m "models:/ernie-math/1"' in text
        assert "the registry in which this is version 1;" in text
        assert "VERSION" not in text


def test_experiment_and_model_are_described(registered: Registration, client: Any) -> None:
    described = client.get_experiment(registered.experiment_id).tags["mlflow.note.content"]
    assert "beside it one of its\nbase model" in described
    assert "`challenger`: the\nnewest" in client.get_registered_model("ernie-math").description


def test_a_cancelled_registration_is_killed_and_leaves_no_version_and_no_model(
    registered: Registration, client: Any, make_request: Make
) -> None:
    def cancel(line: str) -> None:
        if line.startswith("loading models:/cancelled/1 back"):
            raise KeyboardInterrupt

    before = {m.model_id for m in client.search_logged_models([registered.experiment_id])}
    with pytest.raises(KeyboardInterrupt):
        register(make_request(model_name="cancelled"), tell=cancel)
    statuses = [run.info.status for run in client.search_runs([registered.experiment_id], max_results=50)]
    assert statuses.count("KILLED") == 2
    assert {m.model_id for m in client.search_logged_models([registered.experiment_id])} == before
    assert not client.search_model_versions("name='cancelled'")


def test_the_data_set_is_an_input_with_its_version(registered: Registration, client: Any, make_request: Make) -> None:
    import mlflow

    inputs = client.get_run(registered.run_id).inputs.dataset_inputs
    assert [(i.dataset.name, i.tags[0].value) for i in inputs] == [
        ("demo/train", "training"),
        ("demo/eval", "evaluation"),
    ]
    train = inputs[0].dataset
    assert train.digest == "d" * 36
    assert json.loads(train.profile) == {"rows": 3, "data_version": "sha256:" + "d" * 64, "from": "demo:0"}
    assert mlflow.data.get_source(train).uri == make_request().dataset.train_path.as_uri()
    columns = {column["name"]: column for column in json.loads(train.schema)["mlflow_colspec"]}
    assert columns["prompt"]["items"]["properties"]["content"]["type"] == "string"


def test_the_version_has_card_tags_figures_signature_and_example(registered: Registration, client: Any) -> None:
    import mlflow

    version = client.get_model_version("ernie-math", "1")
    assert version.description.startswith("# ernie-math\n")
    assert {*version.tags} == {
        "fingerprint",
        "check.max_logit_difference",
        *(f"gate.{name}" for name in ("promoted", "reasons", "held_out")),
    }, "with champion.before, champion.given_up and published eight"
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert (str(logged.status), logged.source_run_id) == ("READY", registered.run_id)
    assert {m.key: m.value for m in logged.metrics}["accuracy"] == 0.9
    info = mlflow.models.get_model_info(registered.model_uri)
    assert info.signature.inputs.input_names() == ["question", "messages"]
    assert [p.name for p in info.signature.params.params] == ["max_new_tokens", "temperature", "top_p", "seed"]
    folder = Path(mlflow.artifacts.download_artifacts(registered.model_uri))
    assert json.loads((folder / "input_example.json").read_text())["data"] == [[QUESTION]]
    assert "\nlicense: apache-2.0\n" in (folder / "artifacts/adapter/README.md").read_text().partition("\n---\n")[0]
    assert not list(folder.rglob("__pycache__"))
    assert not any("+" in line for line in (folder / "requirements.txt").read_text().splitlines())


def test_a_tampered_probe_fails_with_the_difference_and_leaves_no_version(
    loaded_back_before: None, registered: Registration, client: Any, make_request: Make
) -> None:
    (token, logit), *rest = make_request().probe["top"]
    probe = {**make_request().probe, "top": [[token, logit + 0.5], *rest]}
    before = aliases(client)
    with pytest.raises(
        PipelineError, match=r"is not the model that was trained: its logits differ by up to 0\.5, toler"
    ):
        register(make_request(probe=probe))
    assert [str(v.version) for v in client.search_model_versions("name='ernie-math'")] == [registered.version]
    assert aliases(client) == before
    failed = newest_run(client, registered.experiment_id)
    assert failed.info.status == "FAILED"
    left = client.search_logged_models([registered.experiment_id])
    assert failed.info.run_id not in {model.source_run_id for model in left}


def test_one_that_does_not_beat_the_champion_is_challenger_only(
    loaded_back_before: None, registered: Registration, client: Any, make_request: Make
) -> None:
    seen: list[dict[str, str]] = []

    @contextmanager
    def alone() -> Iterator[None]:
        seen.append(aliases(client))
        yield
        seen.append(aliases(client))

    worse = register(make_request(candidate=Candidate(0.89, SPLIT, "sha256:other")), alone)
    assert not worse.promoted
    before, after = seen
    assert (before["challenger"], after["challenger"]) == (registered.version, worse.version), "moved while alone"
    assert aliases(client) == {"challenger": worse.version, "champion": registered.version}
    assert "89.0 %, is not above the 90.0 % of the present champion, version 1." in worse.reasons[-1]
    assert " ".join(worse.reasons) in client.get_run(worse.run_id).data.tags["mlflow.note.content"]


def test_what_was_registered_is_found_without_mlflow_and_with_it(registered: Registration, make_request: Make) -> None:
    uri, version = make_request().tracking_uri, registered.version
    quick = lookup._in_sqlite(sqlite_file(uri), "ernie-math", version)
    assert quick == lookup._by_client(uri, "ernie-math", version) is not None
    made = lookup.Registered.read(json.loads(json.dumps(asdict(registered))))
    assert "artifacts/adapter/adapter_model.safetensors" in (made.files or {})
    assert lookup.what_is_lost(uri, made) == "", "of this version, MLflow has the very files that were uploaded"


def test_provenance_is_registered_too_and_a_key_that_cannot_sign_is_told_before_anything_is_made(
    registered: Registration, client: Any, make_request: Make
) -> None:
    assert "provenance.json" in registered.files
    assert "model.sig" not in registered.files
    before = len(client.search_runs([registered.experiment_id]))
    with pytest.raises(PipelineError, match=r"ERNIE_PIPELINE_SIGNING_KEY = '/nowhere' cannot be read"):
        register(make_request(signing=Signing(key="/nowhere")))
    assert len(client.search_runs([registered.experiment_id])) == before


def test_a_probe_of_nothing_is_no_check(registered: Registration, make_request: Make) -> None:
    with pytest.raises(PipelineError, match="the probe records no logits"):
        register(make_request(probe={"input_ids": [1], "top": []}))


def test_a_base_that_is_gone_fails_with_one_sentence_and_leaves_nothing(
    registered: Registration, client: Any, make_request: Make, tmp_path: Path
) -> None:
    elsewhere = BaseCheckpoint(name="x/y/z", checkpoint=str(tmp_path / "gone"), version="sha256:0")
    spec = SPEC.model_copy(update={"base": elsewhere}).model_dump(mode="json")
    with pytest.raises(PipelineError, match=r"cannot be loaded back.*the base model of this adapter, x/y/z, is not at"):
        register(make_request(served={**make_request().served, "spec": spec}, model_name="another"))
    assert not client.search_model_versions("name='another'")


def test_in_its_home_with_a_hard_name_the_champion_is_known_by_its_provenance_or_its_fingerprint(
    registered: Registration, client: Any, make_request: Make, tmp_path: Path
) -> None:
    """What the gate says of this very adapter, registered again: `test_gate.py`."""
    request, made = make_request(), lookup.Registered.read(asdict(registered))
    uri, home = request.tracking_uri, make_request().artifact_root.parent
    assert lookup.what_is_lost(uri, made) == ""
    assert list(home.parent.iterdir()) == [home], "no folder of a name that was escaped"
    folder = local_folder(client.get_model_version_download_uri("ernie-math", registered.version))
    assert folder
    by_provenance = _champion(client, request)
    with without(folder / "provenance.json", tmp_path):
        by_fingerprint = _champion(client, request)
        of_another = _champion(client, make_request(tags={"fingerprint": "0" * 16}))
    assert by_provenance == by_fingerprint == Champion("1", 0.9, SPLIT, "sha256:adapter", "")
    assert of_another == Champion("1", 0.9, "", "", "")
    with without(next(folder.rglob("adapter_model.safetensors")), tmp_path):
        assert "adapter_model.safetensors is missing" in lookup.what_is_lost(uri, made)


@contextmanager
def without(file: Path, other_folder: Path) -> Iterator[None]:
    """Meanwhile the file is in the other folder."""
    elsewhere = file.rename(other_folder / file.name)
    try:
        yield
    finally:
        elsewhere.rename(file)
