"""What a rebuild asks for, and how what it made is compared; that it builds: scenarios/staleness/test_verify.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.cli.rebuild import _compared, recorded_recipe
from ernie_pipeline.recipe.as_toml import as_toml
from ernie_pipeline.recipe.load import PRESETS, load_recipe
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.lineage import Link, walk_back
from ernie_pipeline.staleness.chain import Write
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER, EARLIER_SOLUTIONS
from ernie_pipeline.staleness.stages import STAGES
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.staleness.chains import chain_of, recipe_with, walk

OWN_ROWS = {"source": {"kind": "file", "path": "mine.jsonl"}}


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_a_recipe_is_the_same_when_it_is_read_again(preset: str, tmp_path: Path) -> None:
    recipe = load_recipe(preset, source='a "name" with é, \\ and 100 %.jsonl')
    (tmp_path / "recipe.toml").write_text(as_toml(recipe), encoding="utf-8")
    assert load_recipe(str(tmp_path / "recipe.toml")) == recipe


def test_the_recorded_keys_go_before_those_of_today_and_the_last_round_s_before_others(tmp_path: Path) -> None:
    keys = {"training": {"on": "solutions", "backend": "peft", "learning_rate": 1e-5}, "solutions": {"rounds": 2}}
    recipe = recipe_with(**keys, lora={"rank": 3}, evaluation={"rows": 7}, split={"seed": 5})
    store = ArtifactStore(tmp_path)
    chain = chain_of(store, recipe)
    for each in reversed([*chain.rounds()]):
        walk(each)
    links = walk_back(store, chain.artifact("registered_model").manifest["inputs"], "registered_model", STAGES)
    assert {EARLIER_ADAPTER, EARLIER_SOLUTIONS} <= {link.name for link in links}
    made = [link for link in links if link.made]
    today = tmp_path / "today.toml"
    today.write_text('[source]\nkind = "file"\npath = "mine.jsonl"\n[lora]\nrank = 99\n')
    recorded = recorded_recipe(Settings(tmp_path, str(today), None, ""), made)
    assert (recorded.lora, recorded.split, recorded.evaluation) == (recipe.lora, recipe.split, recipe.evaluation)
    assert (recorded.training.learning_rate, recorded.solutions.rounds) == (1e-5, 2)
    assert recorded.source.path == "mine.jsonl"


def test_another_source_than_the_recorded_one_cannot_be_rebuilt(tmp_path: Path) -> None:
    link = Link("benchmark_sets", "a.jsonl=sha256:1", ["math_split"])
    with pytest.raises(
        PipelineError, match=r"made from benchmark_sets a\.jsonl=sha256:1, and the recipe here names none"
    ):
        recorded_recipe(Settings(tmp_path, "demo", None, ""), [link])


def evaluation(device: str, accuracy: float) -> Write:
    def write(work: Any, out: Path) -> None:
        (out / "reports").mkdir()
        (out / "reports" / "run.json").write_text(json.dumps({"device": device}))
        (out / "metrics.json").write_text(json.dumps({"accuracy": accuracy}))

    return write


@pytest.mark.parametrize(
    ("device", "accuracy", "outcome", "said"),
    [
        ("CPU, 1 threads", 0.5, "passed", ": the same bytes"),
        ("CPU, 1 threads", 0.51, "differs", " was built"),
        ("NVIDIA H100", 0.51, "passed", " on NVIDIA H100 (recorded on CPU, 1 threads): accuracy 50.0 %, now 51.0 %"),
        ("NVIDIA H100", 0.75, "differs", "accuracy 50.0 %, now 75.0 %"),
    ],
)
def test_bytes_are_compared_on_the_same_cpu_and_figures_elsewhere(
    tmp_path: Path, device: str, accuracy: float, outcome: str, said: str
) -> None:
    def built(home: Path, write: Write) -> ArtifactStore:
        store = ArtifactStore(home)
        walk(chain_of(store), adapter_evaluation=write)
        return store

    then = built(tmp_path / "then", evaluation("CPU, 1 threads", 0.5))
    now = built(tmp_path / "now", evaluation(device, accuracy))
    [made] = (then.find("adapter_evaluation", name)[0] for name in then.fingerprints("adapter_evaluation"))
    assert made
    link = Link("adapter_evaluation", made.data_version, ["registered_model"], made.manifest, made)
    step = _compared(now, link)
    assert step.outcome == outcome
    assert step.said.endswith(said)
    assert _compared(ArtifactStore(tmp_path / "empty"), link).outcome == "unchecked"
