"""The code location as Dagster sees it: which assets there are, what they depend on, and what stops a run."""

import dagster as dg

from ernie_pipeline.definitions import defs
from ernie_pipeline.orchestration.assets.published_model import published_model as make_published_model
from ernie_pipeline.orchestration.recipes import RecipeAssets
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.staleness.stages import SOURCES, STAGES, all_stages

CHECKS = {
    "raw_nemotron": {"schema"},
    "math_split": {"sizes", "no_overlap", "accounted_for", "filters"},
    "verified_solutions": {"enough_solutions", "no_held_out"},
    "qlora_adapter": {"changed_the_model"},
    "base_evaluation": {"complete"},
    "adapter_evaluation": {"complete"},
    "registered_model": {"gate"},
}


def test_the_assets_depend_on_what_the_table_of_stages_says() -> None:
    """Dagster's marks are right only where both agree: a result names a version of each asset above, of no other."""
    graph = defs.resolve_asset_graph()
    above = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert above == {**{name: set() for name in SOURCES}, **{name: {*stage.inputs} for name, stage in STAGES.items()}}


def test_an_asset_on_demand_depends_on_what_its_stage_says_and_is_not_there_unasked() -> None:
    published_model = make_published_model(RecipeAssets("demo"))
    above = {key.to_user_string() for key in published_model.dependency_keys}
    asked = all_stages(parse_recipe({"publish": {"repo": "me/model"}}, where="test"))
    assert {published_model.key.to_user_string(): above} == {n: {*asked[n].inputs} for n in asked if n not in STAGES}
    assert published_model.key not in defs.resolve_asset_graph().get_all_asset_keys()


def test_each_check_blocks_but_the_gate_and_the_filters_share() -> None:
    graph = defs.resolve_asset_graph()
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    found: dict[str, set[str]] = {}
    for spec in specs:
        found.setdefault(spec.asset_key.to_user_string(), set()).add(spec.name)
    assert found == CHECKS
    assert {spec.name for spec in specs if not spec.blocking} == {"gate", "filters"}


def test_what_takes_a_gpu_shares_its_pool() -> None:
    pools = {name: defs.resolve_assets_def(dg.AssetKey(name)).op.pool for name in STAGES}
    on_gpu = {"verified_solutions", "qlora_adapter", "base_evaluation", "adapter_evaluation"}
    assert {name for name, pool in pools.items() if pool == "gpu"} == on_gpu
