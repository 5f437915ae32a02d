"""A recipe's suites as Dagster's assets, and what the schedule says of suites that it has not loaded."""

from pathlib import Path

import dagster as dg
import pytest

from ernie_pipeline.definitions import BUILT, SOURCES
from ernie_pipeline.orchestration.assets.suites import suite_assets, suite_sets
from ernie_pipeline.orchestration.automation import evaluate
from ernie_pipeline.orchestration.gpu_defaults import gpu_resource
from ernie_pipeline.orchestration.recipes import RecipeAssets
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.staleness.stages import all_sources, all_stages

NAMES = ["one", "two"]
RECIPE = parse_recipe({"suites": {name: {"source": {"path": "a.jsonl"}} for name in NAMES}}, where="test")


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    made = [*SOURCES, *suite_sets(NAMES), *BUILT, *suite_assets(NAMES)]
    asked = [make(RecipeAssets("demo")) for make in made if make.name in {*all_sources(RECIPE), *all_stages(RECIPE)}]
    return dg.Definitions(assets=asked, resources={"gpu": gpu_resource(None)})


def test_the_assets_depend_on_what_the_table_of_stages_says(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    above = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    stages = {name: {*stage.inputs} for name, stage in all_stages(RECIPE).items()}
    assert above == {**{name: set() for name in all_sources(RECIPE)}, **stages}


def test_answers_take_the_gpu_s_pool_and_each_check_blocks_but_that_of_contamination(defs: dg.Definitions) -> None:
    names = [f"suite_{name}_{part}" for name in NAMES for part in ("problems", "base", "adapter", "comparison")]
    pools = {name: defs.resolve_assets_def(dg.AssetKey(name)).op.pool for name in names}
    assert {name for name, pool in pools.items() if pool} == {
        f"suite_{name}_{part}" for name in NAMES for part in ("base", "adapter")
    }
    graph = defs.resolve_asset_graph()
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    own = {(s.asset_key.to_user_string(), s.name): s.blocking for s in specs if s.asset_key.to_user_string() in names}
    assert own == {
        (f"suite_{name}_{part}", check): blocking
        for name in NAMES
        for part, check, blocking in (
            ("problems", "answerable", True),
            ("base", "complete", True),
            ("adapter", "complete", True),
            ("comparison", "apart_from_training", False),
        )
    }


def test_a_suite_that_this_code_location_has_not_loaded_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    place = f'path = "{tmp_path}/rows.jsonl"\n'
    recipe = f'[source]\nkind = "file"\n{place}[suites.mine.source]\n{place}'
    (tmp_path / "recipe.toml").write_text(recipe)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPE", str(tmp_path / "recipe.toml"))
    with dg.DagsterInstance.ephemeral() as instance:
        answer = evaluate(instance, "ernie_refresh")
    assert isinstance(answer, dg.SkipReason)
    assert "the recipe asks for suite_mine_problems, suite_mine_base" in str(answer.skip_message)
    assert 'press "Reload definitions"' in str(answer.skip_message)
