"""What `run` tells at its end, of the artifacts that stand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ernie_pipeline.cli.plan import render_plan
from ernie_pipeline.cli.settings_options import environment_put_back, set_settings
from ernie_pipeline.cli.summary import summary, summary_values
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.staleness.plan import AssetPlan, RefreshPlan

GREEDY = {"figure": "greedy", "base": 0.5, "adapter": 0.75, "gain": 0.25, "low": -0.1, "high": 0.6}


def test_each_suite_has_a_line_once_both_have_answered(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, recipe="demo", source=None, tracking_uri="http://127.0.0.1:9")
    folder = settings.store / "suite_mine_comparison" / "f1"
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text(json.dumps({"figures": [GREEDY]}))
    assets = [AssetPlan(f"suite_{name}_problems", "fresh", fingerprint="f0") for name in ("mine", "later")]
    assets += [AssetPlan("suite_mine_comparison", "fresh", fingerprint="f1"), AssetPlan("suite_later_base", "stale")]
    told = summary(settings, RefreshPlan(tuple(assets), {}, "target"), None).splitlines()
    assert told[0] == ("on mine  50.0 % before, 75.0 % after, greedily: +25.0 points (95 % interval -10.0 to +60.0)")
    assert not any("later" in line for line in told)


REFUSED = {"name": "mine", "version": "4", "model_uri": "models:/mine/4", "promoted": False, "reasons": ["no gain."]}
REFUSED |= {"experiment_id": "1", "run_id": "r"}


def test_what_is_to_be_typed_next_is_about_the_same_home_and_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed without them, `promote 4` and `ask` were about the model of the recipe `demo` in `.ernie`."""
    home = tmp_path / "my home"
    settings = Settings(home=home, recipe="mine.toml", source=None, tracking_uri=f"sqlite:///{home}/mlflow.db")
    (settings.store / "registered_model" / "f1").mkdir(parents=True)
    (settings.store / "registered_model" / "f1" / "registration.json").write_text(json.dumps(REFUSED))
    stands = RefreshPlan((AssetPlan("registered_model", "fresh", fingerprint="f1"),), {}, "target")
    missing = RefreshPlan((AssetPlan("registered_model", "missing"),), {}, "target")
    with environment_put_back():
        set_settings({"home": str(home), "recipe": "mine.toml", "source": None})
        told, planned = summary(settings, stands, None), render_plan(missing)
    registered = summary_values(settings, stands)["registered"]
    assert registered["run_url"] == "http://127.0.0.1:5000/#/experiments/1/runs/r?workflowType=machine_learning"
    assert registered["how_to_look"] == f"mlflow ui --backend-store-uri 'sqlite:///{home}/mlflow.db'"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # nobody is there to be asked for aliases
    served = summary_values(replace(settings, tracking_uri="http://me:s3cret@127.0.0.1:9"), stands)["registered"]
    assert served["how_to_look"] is None
    options = f"--home '{home}' --recipe mine.toml"
    assert f'"ernie promote 4 {options}"' in told
    assert f'ernie ask "Solve for x: 2*x + 3 = 7" --model models:/mine/4 {options}\n' in told
    variables = f"ERNIE_PIPELINE_HOME='{home}' ERNIE_PIPELINE_RECIPE=mine.toml"
    assert f"{variables} dagster dev -m ernie_pipeline.definitions\n" in told
    assert planned.endswith(f'Build them with "ernie run {options}".')
    assert render_plan(missing).endswith('Build them with "ernie run".'), "and of the next command nothing is left"


def test_a_version_is_told_with_the_aliases_that_it_has_now(tmp_path: Path) -> None:
    """As registered, `run` went on to say of a promoted version that it was no champion, and how to make it one."""
    settings = Settings(home=tmp_path, recipe="demo", source=None, tracking_uri=sqlite_uri(tmp_path / "mlflow.db"))
    (settings.store / "registered_model" / "f1").mkdir(parents=True)
    said = settings.store / "registered_model" / "f1" / "registration.json"
    stands = RefreshPlan((AssetPlan("registered_model", "fresh", fingerprint="f1"),), {}, "target")
    with connected(settings.tracking_uri) as client:
        client.create_registered_model("mine")
        for _ in range(4):
            client.create_model_version("mine", source="file:///", tags={CHECKED: "0"})
        client.set_registered_model_alias("mine", "champion", "4")
        said.write_text(json.dumps({**REFUSED, "aliases": ["challenger"]}))
        told = summary(settings, stands, None)
        assert "mine 4 (champion)\n" in told
        assert "made the champion all the same\n" in told
        assert 'ernie ask "Solve for x: 2*x + 3 = 7"\n' in told
        assert summary_values(settings, stands)["registered"]["aliases"] == ["champion"]
        client.set_registered_model_alias("mine", "champion", "1")
        said.write_text(json.dumps({**REFUSED, "aliases": ["champion"], "promoted": True}))
        told = summary(settings, stands, None)
        assert "mine 4\n" in told
        assert 'ernie ask "Solve for x: 2*x + 3 = 7" --model models:/mine/4\n' in told, "the champion is another"
