"""A checkpoint in the hub's format of ERNIE-4.5 through the whole chain, from its rows to the registered model."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from safetensors import safe_open

from ernie_pipeline_tests.models.hub_format import EXPERTS, LAYERS, write_hub_checkpoint
from ernie_pipeline_tests.scenarios.chain import (
    ASSETS,
    FRESH,
    IN_PROCESS,
    QUICK_RECIPE,
    Home,
    Run,
    ask,
    finish,
    materialize,
    plan,
    start_python,
)

LINEAR_LAYERS = LAYERS * 4 + 3 + (LAYERS - 1) * 3 * (1 + EXPERTS)
"""Attention everywhere, the dense layer's MLP, and behind it the shared and the routed experts'."""


EMPTY = """
import dagster as dg

@dg.asset
def raw_nemotron(): pass

@dg.asset(deps=[raw_nemotron])
def math_split(): pass

@dg.asset(deps=[math_split])
def verified_solutions(): pass

@dg.asset(deps=[math_split, verified_solutions])
def qlora_adapter(): pass

@dg.asset(deps=[math_split])
def base_evaluation(): pass

@dg.asset(deps=[math_split, qlora_adapter])
def adapter_evaluation(): pass

@dg.asset(deps=[math_split, qlora_adapter, base_evaluation, adapter_evaluation])
def registered_model(): pass

defs = dg.Definitions(
    [
        raw_nemotron,
        math_split,
        verified_solutions,
        qlora_adapter,
        base_evaluation,
        adapter_evaluation,
        registered_model,
    ]
)
"""


@dataclass(frozen=True)
class HubChain(Home):
    """The quick recipe's chain with that checkpoint as its base model."""

    recipe: Path
    run: Run


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> HubChain:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoint").mkdir()
    checkpoint = write_hub_checkpoint(folder / "checkpoint")
    recipe = folder / "hub.toml"
    recipe.write_text(QUICK_RECIPE.replace('name = "demo"', f'name = "{checkpoint}"'))
    return HubChain(folder / "home", recipe, materialize(folder / "home", recipe=recipe, config=IN_PROCESS))


def test_every_asset_is_built_and_the_plan_has_nothing_to_add(chain: HubChain) -> None:
    assert chain.run.status == 0, chain.run.output[-5000:]
    assert {*chain.run.built} == {*ASSETS}
    planned = plan(chain.home, recipe=chain.recipe)
    assert (planned.status, planned.todo) == FRESH


def test_the_rows_are_in_the_checkpoint_s_own_template_and_end_as_ernie_s_tools_end_them(chain: HubChain) -> None:
    row = pl.read_parquet(chain.artifact("math_split") / "train.parquet").row(0, named=True)
    assert row["prompt_text"].startswith("<|begin_of_sentence|>User: ")
    assert row["prompt_text"].endswith("\nAssistant: ")
    assert row["completion_text"] == f"\\boxed{{{row['answer']}}}</s>"


def test_every_linear_layer_is_in_4_bits_and_has_an_adapter(chain: HubChain) -> None:
    run = chain.json("qlora_adapter", "reports/run.json")
    assert (run["backend"], run["modules"]) == ("peft", LINEAR_LAYERS)
    assert run["four_bit_parameters"] == run["base_parameters"]
    with safe_open(chain.artifact("qlora_adapter") / "adapter" / "adapter_model.safetensors", framework="pt") as file:
        assert len(file.keys()) == 2 * LINEAR_LAYERS


def test_both_models_answer_the_same_rows_without_special_tokens(chain: HubChain) -> None:
    tables = [
        pl.read_parquet(chain.artifact(name) / "predictions.parquet")
        for name in ("base_evaluation", "adapter_evaluation")
    ]
    assert [len(table) for table in tables] == [12, 12]
    assert tables[0]["row_id"].equals(tables[1]["row_id"])
    assert not any("<|" in text or "</s>" in text for table in tables for text in table["prediction"])


def test_the_registered_version_is_loaded_back_and_computes_the_same(chain: HubChain) -> None:
    registration = chain.json("registered_model", "registration.json")
    assert (registration["name"], registration["version"]) == ("quick", "1")
    assert registration["max_logit_difference"] <= 1e-3
    assert registration["answer"]
    assert "artifacts/adapter/adapter_model.safetensors" in registration["files"]


def test_a_run_that_reuses_everything_takes_little_longer_than_one_of_empty_assets(
    chain: HubChain, tmp_path: Path
) -> None:
    """At most 1.5 times: it reads and hashes what it reuses. A second pair is measured where the first is too slow."""
    (tmp_path / "empty.py").write_text(EMPTY)
    pairs = [(reusing(chain), empty(tmp_path))]
    if pairs[0][0] > 1.5 * pairs[0][1]:
        pairs.append((reusing(chain), empty(tmp_path)))
    assert min(reused for reused, _ in pairs) <= 1.5 * min(nothing for _, nothing in pairs)


def reusing(chain: HubChain) -> float:
    """The seconds of the command, each step in a process of its own, as it is by default."""
    run = materialize(chain.home, recipe=chain.recipe)
    assert (run.status, sorted(run.reused)) == (0, sorted(ASSETS)), run.output[-5000:]
    return run.seconds


def empty(folder: Path) -> float:
    """Of the same command on as many assets that do nothing."""
    command = ["-m", "dagster", "asset", "materialize", "--select", "*", "-m", "empty"]
    run = finish(start_python(command, folder / "home", "demo", folder, {}))
    assert sorted(run.materialized) == sorted(ASSETS), run.output[-5000:]
    return run.seconds


def test_all_of_it_is_built_again_to_the_same_bytes(chain: HubChain) -> None:
    status, values = ask(["verify", "models:/quick@challenger", "--rebuild"], chain.home, recipe=chain.recipe)
    assert status == 0, values["sentence"]
    steps = {step["name"]: step["said"] for step in values["steps"] if step["name"].startswith("rebuild")}
    assert {name.removeprefix("rebuild ") for name in steps} == {
        "raw_nemotron",
        "math_split",
        "qlora_adapter",
        "base_evaluation",
        "adapter_evaluation",
    }
    assert all(said.endswith(": the same bytes") for said in steps.values())
