"""`store list | verify | prune`, in processes of their own."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ernie_pipeline.models.checkpoint.version import resolve_checkpoint
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.staleness.stages import STAGES
from ernie_pipeline_tests.cli.own_process import HEAVY, MODULE, WATCHED, Run
from ernie_pipeline_tests.staleness.chains import tree
from ernie_pipeline_tests.store.bases import quantized_base


def test_what_the_store_says_begins_with_where_was_looked(run: Run, fresh: Path, home: Path) -> None:
    for command in ("list", "verify", "prune"):
        assert run(*MODULE, "store", command).stdout.startswith(f"recipe demo, home {home}\n\n")
        values = json.loads(run(*MODULE, "store", command, "--json").stdout)
        assert (values["home"], values["recipe"]) == (str(fresh), "demo")


def test_kept_answers_that_stay_for_a_stale_plan_are_told(run: Run, fresh: Path) -> None:
    rows = fresh / "store" / ".rows" / "0123abcd"
    rows.mkdir(parents=True)
    (rows / "a.jsonl").write_text("[]\n")
    long_ago = time.time() - 15 * 24 * 3600
    for place in (rows / "a.jsonl", rows):
        os.utime(place, (long_ago, long_ago))
    assert "kept answers 0123abcd" in run(*MODULE, "store", "prune").stdout
    shutil.rmtree(fresh / "store" / "qlora_adapter")
    done = run(*MODULE, "store", "prune")
    assert (
        "There is nothing to remove.\nnote: 1 set of kept answers is left, 3 B, since what is to be built"
        in done.stdout
    )


def test_the_store_is_listed_verified_and_pruned(run: Run, fresh: Path) -> None:
    def values(*command: str, status: int = 0) -> Any:
        done = run(*MODULE, "store", *command, "--json")
        assert (done.returncode, done.stderr) == (status, "")
        return json.loads(done.stdout)

    listed = values("list")
    assert [entry["asset"] for entry in listed["artifacts"]] == list(STAGES)
    assert listed["artifacts"][-1]["needed_for"] == ["asked for by the recipe", "newest build", "registered as quick 3"]
    assert "registered as quick 3" in run(*MODULE, "store", "list").stdout

    raw = next((fresh / "store" / "raw_nemotron").iterdir())
    left = raw.with_name(f".{raw.name}.0123abcd")
    left.mkdir()
    (left / "half").write_bytes(bytes(2048))
    before = tree(fresh)
    pruned = values("prune")
    assert (pruned["deleted"], pruned["size"], pruned["artifacts"]) == (False, 2048, [])
    assert tree(fresh) == before
    assert "left half-written by a killed run  2.0 KiB" in run(*MODULE, "store", "prune").stdout
    assert run(*MODULE, "store", "prune", "--delete").stdout.endswith("\nRemoved: 2.0 KiB.\n")
    assert not left.exists()

    assert values("verify") == {"home": str(fresh), "recipe": "demo", "source": None, "damaged": [], "notes": []}
    (raw / "output.json").write_text("2")
    damage = {"asset": "raw_nemotron", "fingerprint": raw.name, "reason": "artifact altered: output.json"}
    assert values("verify", status=3)["damaged"] == [damage]
    said = run(*MODULE, "store", "verify").stdout
    assert f"\n\nraw_nemotron {raw.name}: artifact altered: output.json\n" in said


def test_quantized_base_models_are_listed_verified_and_pruned(run: Run, fresh: Path) -> None:
    """The demo computes in float32, with the backend peft, which keeps none: whatever there is, nothing asks for."""
    store = fresh / "store"
    quantization = load_recipe("demo").quantization.model_dump(mode="json")
    wanted = quantized_base(store, resolve_checkpoint("demo", "main"), quantization=quantization)
    other = quantized_base(store, "commit:0123")

    def ran(*command: str) -> tuple[int, list[str]]:
        done = run("-c", WATCHED, "store", *command)
        *lines, last = done.stdout.splitlines()
        status, started, modules = json.loads(last)
        assert (started, {name.partition(".")[0] for name in modules} & HEAVY, done.stderr) == ([], set(), "")
        assert (lines[0], lines[1]) == (f"recipe demo, home {fresh}", "")
        return status, lines[2:]

    status, lines = ran("list")
    assert status == 0
    assert {line.split()[0] for line in lines if line} >= {wanted.name, other.name}
    assert lines[-1].startswith("Quantized base models: 2, ")
    (wanted / "layer-001.safetensors").unlink()
    assert ran("verify") == (
        3,
        [
            f"quantized base model {wanted.name}: altered: layer-001.safetensors is missing",
            "",
            "A damaged base model is quantized anew by the next process that uses it.",
        ],
    )
    before = tree(store)
    assert {line.split()[3] for line in ran("prune")[1][:2]} == {wanted.name, other.name}
    assert tree(store) == before
    assert ran("prune", "--delete")[1][-1].startswith("Removed: ")
    assert (wanted.exists(), other.exists()) == (False, False)


def test_a_source_that_is_away_stops_no_listing_and_keeps_all(run: Run, fresh: Path) -> None:
    other = quantized_base(fresh / "store", "commit:0123")
    before = tree(fresh)
    for command in (("list",), ("prune", "--delete")):
        done = run(*MODULE, "store", *command, ERNIE_PIPELINE_SOURCE="/nowhere/rows.jsonl")
        assert (done.returncode, done.stderr) == (0, "")
        assert "note: source file /nowhere/rows.jsonl does not exist" in done.stdout
        assert "so every artifact is kept\n" in done.stdout
    after = tree(fresh)
    gone = {name for name in before if name not in after}
    assert {Path(name).parts[2] for name in gone} == {other.name}, "the base model's version is known"


def test_a_registry_that_does_not_answer_stops_no_pruning(run: Run, fresh: Path) -> None:
    done = run(
        *MODULE,
        "store",
        "prune",
        MLFLOW_TRACKING_URI="http://me:s3cret@127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert done.returncode == 0
    assert "every artifact of registered_model is kept, with all that it was built from" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
