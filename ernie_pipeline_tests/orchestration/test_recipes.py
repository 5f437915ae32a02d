"""Several recipes side by side in one code location: keys, schedules, marks, what is shared and what is refused."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ernie_pipeline.orchestration.assets.raw_nemotron import raw_nemotron
from ernie_pipeline.orchestration.automation import TARGET, evaluate, run_under_way
from ernie_pipeline.orchestration.pages.compared import look_at
from ernie_pipeline.orchestration.recipes import RecipeAssets, recipe_of, recipes_of
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.recipe.side_by_side import as_selected, asset_of_step, called
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.staleness.stages import STAGES, open_chain
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.orchestration.pages.test_pages import registration
from ernie_pipeline_tests.scenarios.chain import rows, write_rows
from ernie_pipeline_tests.scenarios.chain import rows as sums
from ernie_pipeline_tests.staleness.chains import writes

RECIPE = '[base_model]\nname = "demo"\n[training]\nmax_steps = {steps}\n[source]\nkind = "file"\npath = "{rows}"\n'
RECIPE += '[registry]\nmodel_name = "{name}"\n'


def write_recipe(folder: Path, name: str, steps: int = 4, rows: str = "rows.jsonl", registered: str = "small") -> str:
    write_rows(folder / rows, sums(range(1)))
    (folder / name).write_text(RECIPE.format(steps=steps, rows=folder / rows, name=registered))
    return str(folder / name)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RecipeAssets]:
    """Two recipes of one data set and one registered name, of which nothing is built."""
    recipes = [write_recipe(tmp_path, "short.toml"), write_recipe(tmp_path, "long-one.toml", steps=8)]
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPES", ", ".join(recipes))
    return recipes_of(Settings.from_environment())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_without_the_variable_keys_and_names_are_those_of_one_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERNIE_PIPELINE_RECIPES", raising=False)
    [only] = recipes_of(Settings.from_environment())
    assert only.key("math_split") == dg.AssetKey("math_split")
    assert (only.called("refresh"), only.group("data"), only.in_run("r1")) == ("refresh", "data", "r1")


def test_each_recipe_has_its_name_before_its_assets_and_a_key_leads_back_to_it(two: list[RecipeAssets]) -> None:
    assert [each.key("math_split").to_user_string() for each in two] == ["short/math_split", "long_one/math_split"]
    assert [each.called("refresh") for each in two] == ["refresh_short", "refresh_long_one"]
    assert [recipe_of(each.key("math_split")) for each in two] == [(each, "math_split") for each in two]
    assert [each.settings().load_recipe().training.max_steps for each in two] == [4, 8]
    with pytest.raises(PipelineError, match="names no recipe called gone any more"):
        recipe_of(dg.AssetKey(["gone", "math_split"]))


LOCATION = """
import json
from ernie_pipeline.definitions import defs
graph, repository = defs.resolve_asset_graph(), defs.get_repository_def()
keys = graph.get_all_asset_keys()
print(json.dumps({
    "above": {k.to_user_string(): [p.to_user_string() for p in graph.get(k).parent_keys] for k in keys},
    "groups": {k.to_user_string(): graph.get(k).group_name for k in keys},
    "checks": [k.to_user_string() for k in graph.asset_check_keys],
    "jobs": repository.job_names,
    "schedules": [s.name for s in repository.schedule_defs],
    "sensors": [s.name for s in repository.sensor_defs],
    "steps": [n.name for n in repository.get_job("__ASSET_JOB").nodes],
}))
"""


def test_the_code_location_has_both_with_names_that_are_unique(two: list[RecipeAssets]) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOCATION], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(found["groups"].values()) == {"short", "long_one", "compared"}
    assert set(found["above"]["long_one/raw_nemotron"]) == {"long_one/nemotron_source"}
    assert {key.partition("/")[0] for key in found["above"]["short/registered_model"]} == {"short"}
    assert {key.partition("/")[0] for key in found["above"]["recipes_compared"]} == {"short", "long_one"}
    assert {"short/registered_model:gate", "long_one/registered_model:gate"} <= {*found["checks"]}
    assert {"refresh_short", "refresh_long_one"} <= {*found["jobs"]}
    assert sorted(found["schedules"]) == ["ernie_refresh_long_one", "ernie_refresh_short"]
    assert sorted(found["sensors"]) == ["source_changed_long_one", "source_changed_short"]
    assert len({*found["steps"]}) == len(found["steps"]) == 2 * (len(STAGES) + 3) + 1


def test_what_one_recipe_has_built_the_other_finds_and_its_marks_are_its_own(
    two: list[RecipeAssets], instance: dg.DagsterInstance
) -> None:
    short, long = two
    first, chain = (open_chain(each.settings()) for each in two)
    built = {name: first.reuse_or_build(name, writes(name)) for name in STAGES if name != "registered_model"}
    assert chain.artifact("math_split").folder == built["math_split"].folder
    request = evaluate(instance, "a test", long)
    assert isinstance(request, dg.RunRequest)
    stale = ["qlora_adapter", "adapter_evaluation", "registered_model"]
    assert request.asset_selection == [long.key(name) for name in stale]
    marked = [key for key in (short.key("math_split"), long.key("math_split")) if instance.has_asset_key(key)]
    assert marked == [long.key("math_split")]
    [event] = [instance.get_latest_materialization_event(long.key("math_split"))]
    assert event
    assert event.asset_materialization
    tags = event.asset_materialization.tags or {}
    assert "dagster/input_data_version/long_one/raw_nemotron" in tags
    assert "dagster/input_data_version/raw_nemotron" not in tags


def test_equal_raw_rows_are_built_once_in_a_run_of_both(two: list[RecipeAssets], instance: dg.DagsterInstance) -> None:
    write_rows(Path(two[0].settings().load_recipe().source.path), rows(range(9)))
    result = dg.materialize([raw_nemotron(each) for each in two], instance=instance)
    pages = {
        event.asset_materialization.asset_key: event.asset_materialization.metadata
        for event in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        if event.asset_materialization
    }
    assert {*pages} == {each.key("raw_nemotron") for each in two}
    assert sorted(bool(page["reused"].value) for page in pages.values()) == [False, True]
    assert len({page["fingerprint"].value for page in pages.values()}) == 1


def test_the_comparison_tells_the_aliases_that_the_registry_has_now(two: list[RecipeAssets]) -> None:
    made = {"registered_model": registration("1", "first", promoted=False)}
    settings = two[0].settings()
    with connected(settings.tracking_uri) as client:
        client.create_registered_model("quick")
        client.create_model_version("quick", source="file:///", tags={CHECKED: "0"})
        client.set_registered_model_alias("quick", "challenger", "1")
        client.set_registered_model_alias("quick", "champion", "1")
        chain = open_chain(settings)
        for name in STAGES:
            chain.reuse_or_build(name, made.get(name) or writes(name))
        assert look_at(two[0], None).aliases.startswith("challenger, champion (read from the registry at ")
        client.delete_registered_model_alias("quick", "champion")
        assert look_at(two[0], None).aliases.startswith("challenger (read from the registry at ")
    assert "math_split" in look_at(two[1], None).artifacts
    assert look_at(two[1], None).aliases == ""


def test_the_runs_of_one_recipe_do_not_hold_up_the_other(two: list[RecipeAssets], instance: dg.DagsterInstance) -> None:
    from dagster._core.test_utils import create_run_for_test

    short, long = two
    create_run_for_test(instance, job_name=short.called("refresh"), status=dg.DagsterRunStatus.STARTED)
    create_run_for_test(
        instance, job_name="__ASSET_JOB", status=dg.DagsterRunStatus.STARTED, asset_selection={short.key("math_split")}
    )
    assert run_under_way(instance, short)
    assert not run_under_way(instance, long)
    assert isinstance(evaluate(instance, "a test", short), dg.SkipReason)
    request = evaluate(instance, "a test", long)
    assert isinstance(request, dg.RunRequest)
    assert request.tags[TARGET].endswith(".long_one")


def test_problems_of_two_seeds_are_two_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[source]\nkind = "demo"\nseed = {seed}\n[registry]\nmodel_name = "small"\n'
    for seed in (1, 2):
        (tmp_path / f"seed{seed}.toml").write_text(text.format(seed=seed))
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPES", ",".join(str(tmp_path / f"seed{seed}.toml") for seed in (1, 2)))
    with pytest.raises(PipelineError, match='both register their models as "small", and read other rows'):
        recipes_of(Settings.from_environment())


def test_one_registered_name_for_two_data_sets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [write_recipe(tmp_path, "a.toml"), write_recipe(tmp_path, "b.toml", rows="others.jsonl")]
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPES", ",".join(recipes))
    said = f'the recipes {recipes[0]} and {recipes[1]} both register their models as "small", and read other rows; give'
    with pytest.raises(PipelineError, match=f"ERNIE_PIPELINE_RECIPES: {said}"):
        recipes_of(Settings.from_environment())
    write_recipe(tmp_path, "b.toml", rows="others.jsonl", registered="others")
    assert len(recipes_of(Settings.from_environment())) == 2


def test_recipes_of_one_name_and_of_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPES", f"demo,{tmp_path}/demo.toml")
    with pytest.raises(PipelineError, match="would both be called demo; rename one of the files"):
        recipes_of(Settings.from_environment())
    with pytest.raises(PipelineError, match="separate recipes by one comma"):
        called("")


def test_a_command_s_assets_are_those_of_its_recipe_where_the_location_has_it() -> None:
    both = {"ERNIE_PIPELINE_RECIPES": "demo, mine.toml"}
    selected, environment = as_selected(["math_split", "qlora_adapter"], both)
    assert selected == 'key:"demo/math_split" or key:"demo/qlora_adapter"'
    assert environment == both
    selected, environment = as_selected(["math_split"], {**both, "ERNIE_PIPELINE_RECIPE": "mine.toml"})
    assert selected == 'key:"mine/math_split"'
    selected, environment = as_selected(["a", "b"], {**both, "ERNIE_PIPELINE_RECIPE": "other.toml"})
    assert (selected, environment) == ("a,b", {"ERNIE_PIPELINE_RECIPE": "other.toml"})
    assert asset_of_step("mine__math_split", ("demo", "mine.toml")) == "math_split"
    assert asset_of_step("math_split", ()) == "math_split"


def test_what_any_of_the_recipes_asks_for_is_not_pruned(
    two: list[RecipeAssets], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ernie_pipeline.cli.store import _contents

    short, long = two
    names = [name for name in STAGES if name != "registered_model"]
    for each in (short, long, short):  # the newest build of each stage is kept in any case: it is not the long one's
        chain = open_chain(each.settings())
        for name in names:
            chain.reuse_or_build(name, writes(f"{name} {each.name}"))
    recipe = Path(short.recipe)
    recipe.write_text(recipe.read_text().replace("max_steps = 4", "max_steps = 5"))
    chain = open_chain(short.settings())
    for name in names:
        chain.reuse_or_build(name, writes(f"{name} again"))
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPE", short.recipe)
    adapters = {e.fingerprint: e.needed_for for e in _contents(Settings.from_environment()).artifacts}
    of_long = open_chain(long.settings()).artifact("qlora_adapter").manifest["fingerprint"]
    assert adapters[of_long] == (f"asked for by {long.recipe}",)
    monkeypatch.delenv("ERNIE_PIPELINE_RECIPES")
    adapters = {e.fingerprint: e.needed_for for e in _contents(Settings.from_environment()).artifacts}
    assert adapters[of_long] == ()
