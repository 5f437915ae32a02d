"""The chain on real rows, where they lie beside the checkout."""

import json
from pathlib import Path

import polars as pl

from ernie_pipeline_tests.scenarios.chain import ASSETS, QUICK_RECIPE, materialize


def test_the_whole_chain_runs_on_gsm8k_s_rows(shared_data: Path, tmp_path: Path) -> None:
    """7,473 real problems; the recipe trains on a subset. The demo model cannot solve them: this is about the way."""
    recipe, home = tmp_path / "real.toml", tmp_path / "home"
    recipe.write_text(
        QUICK_RECIPE.replace(
            "[split]\neval_fraction = 0.1", "[split]\nrows = 200\neval_fraction = 0.1\nmax_tokens = 2048"
        )
    )
    source = shared_data / "gsm8k_train.nemotron.jsonl"
    run = materialize(home, recipe=str(recipe), ERNIE_PIPELINE_SOURCE=str(source))
    assert run.status == 0, run.output[-5000:]
    assert set(run.materialized) == set(ASSETS)
    [raw] = home.glob("store/raw_nemotron/*/rows.parquet")
    assert pl.scan_parquet(raw).select(pl.len()).collect().item() == 7473
    [metrics] = home.glob("store/adapter_evaluation/*/metrics.json")
    assert json.loads(metrics.read_text())["rows"] == 12
