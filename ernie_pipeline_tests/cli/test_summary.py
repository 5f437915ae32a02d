"""What `run` tells at its end, of the artifacts that stand."""

import json
from pathlib import Path

from ernie_pipeline.cli.summary import summary
from ernie_pipeline.recipe.settings import Settings
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
