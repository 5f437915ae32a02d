"""What an interrupted build has left is told by the plan, in words and for programs."""

import json
from pathlib import Path

from ernie_pipeline.cli.plan import plan_values, render_plan
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.staleness.forecast import forecast
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline_tests.staleness.chains import chain_of, recipe_with, walk
from ernie_pipeline_tests.staleness.jobs import keep_rows, split_of

RECIPE = recipe_with(training={"max_steps": 50, "on": "answers"})


def test_a_checkpoint_and_kept_answers_are_told_and_nothing_where_there_is_none(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    walk(chain_of(store, RECIPE), math_split=split_of(4, 4))
    changed = recipe_with(training={"max_steps": 50, "on": "answers", "seed": 1}, evaluation={"max_new_tokens": 99})
    chain = chain_of(store, changed)
    plan = make_plan(chain)
    assert forecast(chain, plan).goes_on == {}
    fingerprint = next(asset.fingerprint for asset in plan.assets if asset.asset == "qlora_adapter")
    assert fingerprint
    (store.unfinished("qlora_adapter", fingerprint) / "checkpoints" / "checkpoint-11").mkdir(parents=True)
    rows = chain.rows("base_evaluation")
    assert rows
    keep_rows(rows.folder, ["a", "b", "c"])

    chain = chain_of(store, changed)
    plan = make_plan(chain)
    costs = forecast(chain, plan)
    assert costs.goes_on == {"qlora_adapter": "goes on after step 11 of 50", "base_evaluation": "3 answers are kept"}
    lines = render_plan(plan, costs, Budget()).splitlines()
    [told] = [line for line in lines if line.startswith("qlora_adapter ")]
    assert "recipe training.seed " in told
    assert told.endswith("; goes on after step 11 of 50")
    values = json.loads(json.dumps(plan_values(plan, costs, Budget())))
    said = {asset["asset"]: asset["goes_on"] for asset in values["assets"]}
    assert (said["qlora_adapter"], said["raw_nemotron"]) == ("goes on after step 11 of 50", None)
