"""`verify`, `promote` and `rollback`, on a home that was made without a model; with one: scenarios/."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.recipe.signing import UNSIGNED
from ernie_pipeline.registry.aliases import make_champion
from ernie_pipeline.registry.lineage import walk_back
from ernie_pipeline.registry.provenance import read_provenance
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.registry.verification.chain import Here, check_links, check_root
from ernie_pipeline.registry.verification.figures import check_figures
from ernie_pipeline.registry.verification.files import check_files
from ernie_pipeline.registry.verification.step import Step
from ernie_pipeline.registry.verification.version import find_version
from ernie_pipeline.staleness.stages import STAGES, open_chain
from ernie_pipeline.store.artifacts import MANIFEST, ArtifactStore, Provenance
from ernie_pipeline.store.sealed import list_files, read_sealed
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.flatten import flatten
from ernie_pipeline_tests.cli.registered import RegisteredHome, make_home
from ernie_pipeline_tests.staleness.chains import walk

SIDES = ("base", "adapter")
Ask = Callable[..., "tuple[int, dict[str, Any]]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RegisteredHome:
    return make_home(tmp_path_factory.mktemp("registered"))


@pytest.fixture
def home(made: RegisteredHome, tmp_path: Path) -> RegisteredHome:
    """A copy, to be damaged."""
    return made.copy(tmp_path)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command on a home: its exit status, and what it printed as JSON, each step by its name."""

    def run(home: RegisteredHome, *arguments: str, **environment: str) -> "tuple[int, dict[str, Any]]":
        for name, value in {**home.environment, **environment}.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        status = main([*arguments, "--json"])
        values = json.loads(capsys.readouterr().out)
        return status, {**values, "steps": {step["name"]: step for step in values["steps"]}}

    return run


def found(values: dict[str, Any], outcome: str) -> dict[str, str]:
    """What each step of that outcome said."""
    return {name: step["said"] for name, step in values["steps"].items() if step["outcome"] == outcome}


def another_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_model_that_is_as_it_was_measured_passes_step_by_step(made: RegisteredHome, ask: Ask) -> None:
    status, values = ask(made, "verify")
    assert (status, values["outcome"], values["model"]) == (0, "passed", "models:/quick/1")
    assert [*found(values, "unchecked")] == ["signature"]
    assert values["sentence"] == (
        "models:/quick/1 is what was measured: 17 steps passed; beside that, not checked: signature."
    )
    chain = {name.removeprefix("chain ") for name in values["steps"] if name.startswith("chain ")}
    stages = {"registered_model", "adapter_evaluation", "base_evaluation", "qlora_adapter", "verified_solutions"}
    assert chain == {*stages, "math_split", "raw_nemotron", "nemotron_source", "base_model", "benchmark_sets"}
    assert {name for name in values["steps"] if name.startswith("grades ")} == {
        "grades verified_solutions",
        "grades base_evaluation",
        "grades adapter_evaluation",
    }
    assert values["steps"]["chain qlora_adapter"]["details"]["libraries"]["torch"]


def test_every_kind_of_tampering_is_told_in_its_own_step(home: RegisteredHome, ask: Ask) -> None:
    another_byte(home.files("1") / "adapter" / "adapter_model.safetensors")
    another_byte(home.artifact("qlora_adapter") / "output.json")
    shutil.rmtree(home.artifact("raw_nemotron"))
    home.sql("UPDATE latest_metrics SET value = 0.99 WHERE key = 'accuracy'")
    (home.folder / "rows.jsonl").write_text("other rows\n")
    status, values = ask(home, "verify", "models:/quick/1", "--answers", "1")
    assert status == 3
    assert "nothing of them is run" in found(values, "unchecked")["answers"]
    assert found(values, "differs") == {
        "files": "adapter/adapter_model.safetensors was altered",
        "provenance": "adapter/adapter_model.safetensors is not the file that the statement is about",
        "chain qlora_adapter": values["steps"]["chain qlora_adapter"]["said"],
        "registry figures": "metric accuracy is 0.99 in the registry, and 0.9166666666666666 by the stored answers",
    }
    assert "artifact altered: output.json" in values["steps"]["chain qlora_adapter"]["said"]
    assert "is not in this store any more" in found(values, "unchecked")["chain raw_nemotron"]
    assert "so it was not looked at" in found(values, "unchecked")["chain nemotron_source"]
    assert values["sentence"].startswith("models:/quick/1 is NOT what was recorded: see files, provenance, chain")


FIGURES_IN = {
    "metrics": "value = value + 1e-6 WHERE key = 'accuracy' AND run_uuid",
    "latest_metrics": "value = value + 1e-6 WHERE key = 'accuracy' AND run_uuid",
    "logged_model_metrics": "metric_value = metric_value + 1e-6 WHERE metric_name = 'accuracy' AND run_id",
}


def registry_figures(home: RegisteredHome, **tags: str) -> Step:
    """The step on the figures of version 1, by what its artifacts hold."""
    sides = {side: json.loads((home.artifact(f"{side}_evaluation") / "metrics.json").read_text()) for side in SIDES}
    comparison = json.loads((home.artifact("registered_model") / "comparison.json").read_text())
    with connected(home.settings.tracking_uri) as client:
        version = find_version(client, "1", "quick")
        return check_figures(client, version, flatten({**sides, "comparison": comparison}), tags)


@pytest.mark.parametrize("table", FIGURES_IN)
def test_an_edited_figure_is_found_wherever_mlflow_keeps_it(home: RegisteredHome, table: str) -> None:
    run = "(SELECT run_uuid FROM tags WHERE key = 'model' AND value = ?)"
    place = {"metrics": "the history of ", "latest_metrics": "", "logged_model_metrics": "logged model's "}[table]
    for side, whose in (("base", "the base model's "), ("adapter", "")):  # the adapter's are looked at first
        home.sql(f"UPDATE {table} SET {FIGURES_IN[table]} IN {run}", side)
        said = registry_figures(home).said
        assert all(words in said for words in (whose, place, "metric accuracy is"))
        assert ("base model's" in said) is bool(whose)


def test_an_edited_or_invented_line_of_the_table_of_figures_is_found(home: RegisteredHome) -> None:
    with connected(home.settings.tracking_uri) as client:
        run = find_version(client, "1", "quick").run_id
    [file] = (home.folder / "home" / "mlartifacts").rglob(f"{run}/**/figures.json")
    whole = json.loads(file.read_text())
    changed = [[name, value, low, high and high + 1e-6] for name, value, low, high in whole["data"]]
    for rows, said in (
        (changed, "table figures.json: accuracy_high is 0."),
        (
            [*whole["data"], ["accuracy on AIME", 0.9, "", ""]],
            "accuracy on AIME is 0.9 in the registry, and nothing",
        ),
    ):
        file.write_text(json.dumps({**whole, "data": rows}))
        assert said in registry_figures(home).said
    file.unlink()  # as of a version from before there was one, whose metrics all were figures
    with connected(home.settings.tracking_uri) as client:
        client.log_metric(run, "comparison/p_value", 0.001)
    assert "metric comparison/p_value is 0.001 in the registry" in registry_figures(home).said


def test_what_is_wrong_with_the_runs_of_a_version_is_told_in_one_sentence(home: RegisteredHome) -> None:
    assert registry_figures(home, **{"gate.accuracy": "0.25"}).outcome == "differs"
    home.sql("DELETE FROM tags WHERE key = 'adapter_run'")
    assert registry_figures(home).said.startswith("the base model's metric accuracy is nothing in the registry")
    home.sql("DELETE FROM tags WHERE key = 'model' AND value = 'adapter'")
    assert "from before the base model had a run of its own" in registry_figures(home).said
    home.sql("UPDATE model_versions SET run_id = 'beef' WHERE version = 1")
    assert "Run with id=beef not found" in registry_figures(home).said


@pytest.mark.parametrize(
    ("tag", "step"),
    [
        ("gate.promoted", "chain registered_model"),
        ("gate.reasons", "chain registered_model"),
        ("data_version.qlora_adapter", "chain registered_model"),
        ("fingerprint", "chain registered_model"),
        ("fingerprint.math_split", "chain math_split"),
    ],
)
def test_an_edited_tag_is_found(home: RegisteredHome, tag: str, step: str) -> None:
    """Those of a version from before too."""
    home.tag_as_before()

    def told() -> dict[str, str]:
        with connected(home.settings.tracking_uri) as client:
            version = find_version(client, "2", "quick")
        store = ArtifactStore(home.settings.store)
        root, made = check_root(store, version, read_provenance(home.files("2")))
        links = walk_back(store, (made or {"inputs": {}})["inputs"], "registered_model", STAGES)
        here = Here(lambda module: None, lambda library: None, lambda source: "")
        return {each.name: each.outcome for each in [root, *check_links(links, version, None, here)]}

    assert "differs" not in told().values()
    home.sql("UPDATE model_version_tags SET value = 'beef' WHERE key = ? AND version = 2", tag)
    found = told()
    assert found[step] == ("unchecked" if tag == "fingerprint" else "differs")


@pytest.mark.parametrize(("name", "what"), [("math_split", "fingerprint"), ("qlora_adapter", "dataVersion")])
def test_an_altered_provenance_is_found_and_the_chain_does_not_bear_it_out(
    home: RegisteredHome, ask: Ask, name: str, what: str
) -> None:
    file = home.files("1") / "provenance.json"
    statement = json.loads(file.read_text())
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    [link] = [each["annotations"] for each in dependencies if each["name"] == name]
    link[what] = "beef"
    file.write_text(json.dumps(statement))
    status, values = ask(home, "verify", "1")
    told = found(values, "differs")
    assert status == 3
    assert told["files"] == "provenance.json was altered"
    assert "beef" in told[f"chain {name}"]


def test_a_version_with_the_tags_of_before_is_verified_promoted_and_rolled_back(home: RegisteredHome, ask: Ask) -> None:
    home.tag_as_before()
    status, values = ask(home, "verify", "1")
    assert (status, len(found(values, "passed"))) == (0, 17)
    assert ask(home, "promote", "2")[1]["champion"] == {"before": "1", "now": "2"}
    assert ask(home, "rollback")[1]["champion"] == {"before": "2", "now": "1"}


def test_what_a_version_was_made_from_is_known_where_its_artifact_is_not(home: RegisteredHome, ask: Ask) -> None:
    shutil.rmtree(home.artifact("registered_model"))
    status, values = ask(home, "verify", "1")
    assert status == 1
    assert "is not in this store" in found(values, "unchecked")["chain registered_model"]
    assert {"chain qlora_adapter", "chain math_split", "grades adapter_evaluation"} <= {*found(values, "passed")}


def test_other_rows_that_made_the_same_split_afterwards_change_nothing(home: RegisteredHome, ask: Ask) -> None:
    """A split of that data version stands twice then, and the newer one is not the one that the version was made of."""
    split = home.artifact("math_split")
    (home.folder / "rows.jsonl").write_text("the same rows, written otherwise\n")
    walk(
        open_chain(home.settings, ask_registry=False),
        raw_nemotron=lambda work, out: write_text(out / "rows", "otherwise"),
        math_split=lambda work, out: copy_files(split, out),
    )
    assert len([*split.parent.glob("[!.]*")]) == 2
    status, values = ask(home, "verify", "1")
    assert (status, found(values, "differs")) == (0, {})


def write_text(file: Path, text: str) -> None:
    file.write_text(text)


def copy_files(folder: Path, out: Path) -> None:
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)


def sealed_anew(home: RegisteredHome, folder: Path, **changes: Any) -> str:
    """Make an artifact's manifest fit its files, whatever is in them, with these changes; its data version then."""
    manifest, _ = read_sealed(folder / MANIFEST)
    made_from = {name: manifest[name] for name in Provenance.__dataclass_fields__} | changes
    with TemporaryDirectory() as kept:
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)

        def write(out: Path) -> None:
            shutil.copytree(kept, out, dirs_exist_ok=True)

        return ArtifactStore(home.settings.store).build(Provenance(**made_from), write).data_version


def swapped(home: RegisteredHome) -> Path:
    """Two answers of adapter_evaluation change places; its folder."""
    folder = home.artifact("adapter_evaluation")
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    rows[0]["prediction"], rows[1]["prediction"] = rows[1]["prediction"], rows[0]["prediction"]
    pq.write_table(pa.Table.from_pylist(rows), folder / "predictions.parquet")
    return folder


@pytest.mark.parametrize(
    ("sealed", "said"), [(False, "artifact altered: predictions.parquet"), (True, "it holds data version")]
)
def test_swapped_answers_are_no_part_of_the_chain_sealed_or_not(home: RegisteredHome, sealed: bool, said: str) -> None:
    inputs = read_sealed(home.artifact("registered_model") / MANIFEST)[0]["inputs"]
    folder = swapped(home)
    if sealed:
        sealed_anew(home, folder)
    links = walk_back(ArtifactStore(home.settings.store), inputs, "registered_model", STAGES)
    [link] = [link for link in links if link.problem]
    assert (link.name, link.altered, link.artifact) == ("adapter_evaluation", True, None)
    assert said in link.problem


def test_answers_that_the_grader_sees_otherwise_are_found_although_the_whole_chain_was_made_to_fit(
    home: RegisteredHome, ask: Ask
) -> None:
    """Whoever may write everywhere, and has no key to sign with, can make the chain agree; not the grades."""
    answers = sealed_anew(home, swapped(home))
    root = home.artifact("registered_model")
    inputs = {**read_sealed(root / MANIFEST)[0]["inputs"], "adapter_evaluation": answers}
    sealed_anew(home, root, inputs=inputs)
    (home.files("1") / "provenance.json").unlink()
    status, values = ask(home, "verify", "1")
    told = found(values, "differs")
    assert status == 3
    assert told["files"] == "provenance.json is missing"
    assert "2 of 12 answers are not as they were graded" in told["grades adapter_evaluation"]


def test_a_version_from_before_provenance_is_told_as_such(home: RegisteredHome) -> None:
    (home.files("1") / "provenance.json").unlink()
    steps, statement = check_files(home.files("1"), list_files(home.files("1")), UNSIGNED)
    assert [(step.name, step.outcome, step.asked) for step in steps] == [
        ("files", "passed", True),
        ("signature", "unchecked", False),
        ("provenance", "unchecked", False),
    ]
    assert statement is None


def test_what_cannot_be_found_is_an_error_in_a_sentence(
    made: RegisteredHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    for model, said in {
        "9": "there is no version of quick with the number 9",
        "chalenger": "with the alias chalenger in the registry; did you mean 'challenger'?",
        "models:/slow@champion": "error: the registry has no model 'slow'; there are quick",
        "models:/quikc/1": "error: the registry has no model 'quikc'; did you mean 'quick'?",
        "models:/other": "names no version",
    }.items():
        for command in ("verify", "promote", "serve"):
            assert main([command, model]) == 1
            assert said in capsys.readouterr().err
    for command in (["export", "peft", str(tmp_path / "out"), "--model"], ["ask", "q", "--model"]):
        assert main([*command, "models:/quikc/1"]) == 1
        assert "the registry has no model 'quikc'; did you mean 'quick'?" in capsys.readouterr().err
    assert main(["ask", " "]) == 1
    assert capsys.readouterr().err.startswith("error: the question is empty; ask one, such as ")
    assert main(["verify", "--answers", "-1"]) == main(["verify", "--files", "--rebuild"]) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["verify", "1"]) == 1
    assert "MLflow at http://127.0.0.1:9" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    out = str(tmp_path / "out")
    for command in (
        *(["verify"], ["rollback"], ["promote", "1"], ["compare", "base", "champion"]),
        *(["ask", "q"], ["chat", "--model", "1"], ["export", "peft", out]),
    ):
        assert main([*command, "--recipe", "best"]) == 1
        assert capsys.readouterr().err == (
            f'error: nothing is registered yet in {tmp_path}; build and register a model with "ernie run --recipe '
            'best", or name where there is one with --home (or MLFLOW_TRACKING_URI)\n'
        )
    assert not any(tmp_path.iterdir())


def test_promote_and_rollback_move_the_champion_once_it_is_verified(home: RegisteredHome, ask: Ask) -> None:
    place = str(home.settings.home)
    status, values = ask(home, "promote", "2", "--home", place)
    assert (status, values["champion"]) == (0, {"before": "1", "now": "2"})
    again = f'"ernie rollback --home {shlex.quote(place)}"'
    assert values["said"].splitlines() == [
        f"The champion of quick was version 1, and is version 2 now; {again} goes back.",
        "The gate had not let it become champion: It is better.",
    ]
    assert home.aliases() == {"challenger": "2", "champion": "2"}
    another_byte(home.files("1") / "MLmodel")
    status, values = ask(home, "rollback")
    assert (status, values["model"], values["champion"]) == (3, "models:/quick/1", None)
    assert values["said"] == "Nothing was moved: the champion of quick is version 2, as before."
    assert home.aliases()["champion"] == "2"
    another_byte(home.files("1") / "MLmodel")
    shutil.rmtree(home.artifact("raw_nemotron"))
    assert ask(home, "rollback")[0] == 1, "pruned"
    status, values = ask(home, "rollback", "--files")
    assert (status, values["champion"], home.aliases()["champion"]) == (0, {"before": "2", "now": "1"}, "1")
    assert values["sentence"].startswith("models:/quick/1 is what was registered: 3 steps passed")
    assert values["said"].endswith('and is version 1 now; "ernie promote 2" goes back.'), (
        "a rollback would find no more"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")
def test_who_may_not_write_in_the_home_is_told_before_anything_is_verified(
    made: RegisteredHome, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory() as folder:
        home = made.copy(Path(folder))
        Path(folder).chmod(0o755)
        before = home.aliases()
        for name, value in home.environment.items():
            monkeypatch.setenv(name, value)
        os.setresuid(12345, 12345, 0)
        try:
            statuses = [main(["promote", "2"]), main(["rollback"])]
        finally:
            os.setresuid(0, 0, 0)
        told = capsys.readouterr()
        assert (statuses, told.out) == ([1, 1], "")
        assert told.err.count("is another user's: you may not write ") == 2
        assert home.aliases() == before


def test_a_version_that_gave_its_alias_up_on_purpose_is_not_lost_and_not_registered_again(
    home: RegisteredHome,
) -> None:
    """Else a refresh would register it anew, and so undo a rollback."""
    store = ArtifactStore(home.settings.store)
    folders = {f.name: json.loads((f / "registration.json").read_text()) for f in store.root.glob("registered_model/*")}
    [(fingerprint, said)] = [(name, each) for name, each in folders.items() if each["version"] == "2"]
    with connected(home.settings.tracking_uri) as client:
        make_champion(store, client, "quick", "2", instead_of="1", back=False)
        lost = open_chain(home.settings)._lost["registered_model"]
        artifact = store.find("registered_model", fingerprint)[0]
        assert artifact
        said["aliases"] = ["champion"]  # as if its gate had given it the alias
        (artifact.folder / "registration.json").write_text(json.dumps(said))
        assert lost(artifact) == ""
        client.set_registered_model_alias("quick", "champion", "1")  # by hand: nobody says why
        assert lost(artifact) == "the alias champion of version 2 of quick was given back to version 1"
        client.set_registered_model_alias("quick", "champion", "2")
        make_champion(store, client, "quick", "1", instead_of="2", back=True)
        assert lost(artifact) == ""


def test_of_two_at_once_one_moves_the_alias_and_the_other_says_that_it_was_moved(home: RegisteredHome) -> None:
    store = ArtifactStore(home.settings.store)

    def move(version: str) -> str:
        with connected(home.settings.tracking_uri) as client:
            try:
                return make_champion(store, client, "quick", version, instead_of=None, back=False).now
            except PipelineError as error:
                return str(error)

    with connected(home.settings.tracking_uri) as client:
        client.delete_registered_model_alias("quick", "champion")
        with ThreadPoolExecutor(2) as threads:  # each waits for the other at the store's lock
            moved = sorted(threads.map(move, ("1", "2")))
        assert moved[0] in ("1", "2")
        assert f"was moved from none to {moved[0]} meanwhile; nothing was changed" in moved[1]
        assert home.aliases()["champion"] == moved[0]
