"""`python -m ernie_pipeline`, in processes of its own."""

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ernie_pipeline.cli.plan import plan_with_costs
from ernie_pipeline.recipe.load import PRESETS
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.staleness.stages import STAGES
from ernie_pipeline.staleness.warnings import gate_warnings
from ernie_pipeline_tests.cli.own_process import ADAPTER, HEAVY, MODULE, WATCHED, Run
from ernie_pipeline_tests.scenarios.staleness.workplace import copy_package
from ernie_pipeline_tests.staleness.chains import tree


def test_a_new_project_s_plan_is_there_in_two_seconds_and_exits_3(run: Run, home: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = run(*MODULE, "plan")
        seconds.append(time.monotonic() - start)
    assert (done.returncode, done.stderr) == (3, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()[4:11]] == [[name, "missing"] for name in STAGES]
    assert min(seconds) < 2
    assert not home.exists(), "a plan writes nothing"


def test_when_all_is_fresh_the_plan_exits_0_and_says_so(run: Run, fresh: Path) -> None:
    before = tree(fresh)
    done = run(*MODULE, "plan")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nEverything is fresh: there is nothing to build.\n")
    assert tree(fresh) == before


def test_the_plan_as_json_names_each_asset_s_state_and_reasons(run: Run, fresh: Path) -> None:
    recipe = fresh / "recipe.toml"
    demo = (PRESETS / "demo.toml").read_text()
    recipe.write_text(demo.replace("eval_every = 50", "eval_every = 25"))
    done = run(*MODULE, "plan", "--json", ERNIE_PIPELINE_RECIPE=str(recipe))
    plan = json.loads(done.stdout)
    assert (done.returncode, plan["fresh"], plan["assets"][0]["state"]) == (3, False, "fresh")
    assert (plan["assets"][3]["state"], plan["assets"][3]["reasons"]) == (
        "stale",
        ["recipe training.eval_every 50 -> 25"],
    )
    assert len(plan["target"]) == 16
    assert sorted(plan["sources"]) == ["base_model", "benchmark_sets", "nemotron_source"]


def test_a_gate_that_did_not_pass_is_told_until_the_version_is_made_champion_all_the_same(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(fresh))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plan, _ = plan_with_costs()
    assert plan.fresh
    settings = replace(Settings.from_environment(), tracking_uri=sqlite_uri(tmp_path / "mlflow.db"))
    (words,) = gate_warnings(plan, settings)
    assert words.startswith("quick 3 is no champion, for the gate did not pass: the gain is too small. To make it one")
    assert gate_warnings(plan, settings, "{} --home x".format)[0].endswith(": ernie promote 3 --home x")
    with connected(settings.tracking_uri) as client:
        client.create_registered_model("quick")
        for _ in range(3):
            client.create_model_version("quick", source="file:///", tags={CHECKED: "0"})
        client.set_registered_model_alias("quick", "champion", "3")
    assert gate_warnings(plan, settings) == []


def test_a_gpu_file_that_cannot_be_is_told_by_the_plan(run: Run, home: Path, tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text("resources: {gpu: {config: {launcherr: local}}}")
    done = run(*MODULE, "plan", ERNIE_PIPELINE_GPU=str(tmp_path / "gpu.yaml"))
    assert done.returncode == 1
    assert "gpu.launcherr is none of the fields there" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not home.exists()


def test_a_lost_registration_is_in_the_plan(run: Run, fresh: Path) -> None:
    (fresh / "mlflow.db").unlink()
    done = run(*MODULE, "plan", "--json")
    last = json.loads(done.stdout)["assets"][-1]
    assert (done.returncode, last["state"]) == (3, "stale")
    assert last["reasons"] == [f"version 3 of quick is not in the registry at sqlite:///{fresh}/mlflow.db"]
    assert not (fresh / "mlflow.db").exists()


def without_alias(home: Path) -> str:
    with sqlite3.connect(home / "mlflow.db") as database:
        database.execute("DELETE FROM registered_model_aliases")
    return "version 3 of quick has lost its alias champion"


def truncated(home: Path) -> str:
    (home / "mlartifacts" / ADAPTER).write_bytes(b"weight")
    return f"version 3 of quick is damaged in {home}/mlartifacts: {ADAPTER}"


def deleted(home: Path) -> str:
    (home / "mlartifacts" / ADAPTER).unlink()
    return f"version 3 of quick is damaged in {home}/mlartifacts: {ADAPTER} is missing"


@pytest.mark.parametrize("damage", [without_alias, truncated, deleted])
def test_what_the_registry_lost_is_told_by_plan_and_verify(
    run: Run, fresh: Path, damage: Callable[[Path], str]
) -> None:
    said = damage(fresh)
    done = run(*MODULE, "plan", "--json")
    last = json.loads(done.stdout)["assets"][-1]
    assert (done.returncode, last["state"], last["reasons"]) == (3, "stale", [said])
    done = run(*MODULE, "store", "verify")
    assert done.returncode == 3
    assert [line for line in done.stdout.splitlines() if line.startswith("registered_model ") and said in line]


def test_a_registry_that_does_not_answer_is_a_note_of_verify(run: Run, fresh: Path) -> None:
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = run(*MODULE, "store", "verify", **away)
    assert done.returncode == 0
    assert "\n\nEverything is intact.\nnote: MLflow at http://127.0.0.1:9: " in done.stdout
    assert done.stdout.endswith("; so what is registered was not looked at\n")


@pytest.mark.parametrize(
    "command", [("plan",), ("plan", "--json"), ("refresh",), ("store", "list"), ("store", "prune")]
)
def test_a_recipe_that_cannot_be_read_is_one_sentence_on_stderr(run: Run, tmp_path: Path, command: tuple[str]) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text("[lora]\nrnak = 8\n")
    done = run(*MODULE, *command, ERNIE_PIPELINE_RECIPE=str(recipe))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: recipe {recipe}: unknown key lora.rnak; did you mean 'rank'?\n"


def test_a_source_that_is_not_there_or_has_no_rows_is_told_by_the_plan(run: Run, tmp_path: Path) -> None:
    done = run(*MODULE, "plan", ERNIE_PIPELINE_SOURCE="/nowhere/rows.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: source file /nowhere/rows.jsonl does not exist; set source.path")
    assert done.stderr.count("\n") == 1
    (tmp_path / "rows.csv").touch()
    done = run(*MODULE, "plan", "--source", str(tmp_path / "rows.csv"))
    assert done.returncode == 1
    assert f"missing. raw_nemotron cannot be built: file {tmp_path}/rows.csv holds no rows: it is empty" in done.stdout


def test_a_module_that_is_no_python_is_one_sentence_with_its_name(run: Run, tmp_path: Path) -> None:
    """One that only a stage reaches, one that both need, and two of the command's own."""
    code = copy_package(tmp_path / "code")
    for module in ("training/config.py", "utils/flatten.py", "cli/plan.py", "store/sealed.py"):
        file = code / "ernie_pipeline" / module
        whole = file.rename(tmp_path / "whole.py")
        file.write_text("def broken(:\n")
        for command in ("plan", "refresh"):
            done = run("-P", *MODULE, command, PYTHONPATH=str(code))  # -P: not this folder's package
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"error: {file}, line 1 is no Python that can be read: invalid syntax; mend it\n"
        whole.rename(file)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ERNIE_PIPELINE_HOME", "/etc/passwd/x", "cannot be a folder, because /etc/passwd is a file"),
        ("MLFLOW_TRACKING_URI", "file:./mlruns", "names no place where MLflow keeps a model registry"),
        ("ERNIE_PIPELINE_BUDGET", "soon", "is no amount of GPU time or money above 0"),
        ("ERNIE_PIPELINE_GPU_PRICE", "2.5", "is no price of a GPU hour"),
    ],
)
def test_a_place_that_cannot_work_is_one_sentence_before_any_work(
    run: Run, home: Path, variable: str, value: str, said: str
) -> None:
    for command in ("plan", "refresh"):
        done = run(*MODULE, command, **{variable: value})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {variable} = '{value}' {said}")
        assert done.stderr.count("\n") == 1
    if variable == "ERNIE_PIPELINE_HOME":
        assert run(*MODULE, "plan", "--home", value).stderr.startswith(f"error: --home = '{value}' {said}"), "as typed"
    assert not home.exists()


@pytest.mark.parametrize("command", ["plan", "refresh", "store list", "store verify", "store prune --delete"])
def test_what_needs_no_run_starts_none_and_loads_no_heavy_library(run: Run, fresh: Path, command: str) -> None:
    done = run("-c", WATCHED, *command.split())
    status, started, modules = json.loads(done.stdout.splitlines()[-1])
    assert (status, started) == (0, [])
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()


def test_a_refresh_runs_what_is_not_fresh_and_tells_when_it_failed(run: Run, fresh: Path, tmp_path: Path) -> None:
    """Dagster's place is taken by a module that says what it was asked for and fails as it is told to."""
    (tmp_path / "dagster.py").write_text(
        "import os, sys\nprint('asked', *sys.argv[1:])\nsys.exit(int(os.environ['STATUS']))\n"
    )
    shutil.rmtree(next((fresh / "store" / "adapter_evaluation").iterdir()))
    asked = "asked asset materialize -m ernie_pipeline.definitions --select adapter_evaluation,registered_model"
    for status, exit_status in (("0", 0), ("1", 1), ("7", 1)):
        done = run(*MODULE, "refresh", PYTHONPATH=str(tmp_path), STATUS=status)
        assert done.returncode == exit_status
        assert asked in done.stdout.splitlines()
        assert done.stdout.count("asset ") - done.stdout.count("asked asset ") == (1 if exit_status else 2), (
            "how things are now is said once it was built"
        )
        assert re.search(r"^adapter_evaluation  stale    0\.0 s  .* artifact deleted$", done.stdout, re.MULTILINE)
        assert done.stdout.endswith("\nThis refresh spent no GPU time: no job was run.\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("plan",), "asset "),
        (("store", "list"), "There is no artifact in the store."),
        (("store", "verify"), "There is nothing to verify."),
        (("store", "prune"), "There is nothing to remove."),
    ],
)
def test_in_the_wrong_folder_it_is_said_where_was_looked_and_that_nothing_is_there(
    run: Run, home: Path, command: tuple[str, ...], said: str
) -> None:
    done = run(*MODULE, *command)
    where, nothing, empty, found = done.stdout.split("\n", 3)
    assert where == f"recipe demo, home {home}"
    elsewhere = "if you have built elsewhere, name that home with --home"
    assert (nothing, empty) == (f"there is no artifact in {home / 'store'}; {elsewhere}", "")
    assert found.startswith(said)
    assert not home.exists()
