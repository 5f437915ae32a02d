"""Real rows, where they lie beside the checkout, as far as the adapter."""

import json
from pathlib import Path

import polars as pl

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, QUICK_RECIPE, materialize

AS_FAR_AS_THE_ADAPTER = "raw_nemotron,math_split,qlora_adapter"


def test_an_adapter_is_trained_on_gsm8k_s_rows(shared_data: Path, tmp_path: Path) -> None:
    """7,473 real problems; the recipe trains on a subset. The demo model cannot solve them: this is about the way."""
    recipe, home = tmp_path / "real.toml", tmp_path / "home"
    recipe.write_text(
        QUICK_RECIPE.replace(
            "[split]\neval_fraction = 0.1", "[split]\nrows = 200\neval_fraction = 0.1\nmax_tokens = 2048"
        )
    )
    source = str(shared_data / "gsm8k_train.nemotron.jsonl")
    run = materialize(
        home, recipe=recipe, select=AS_FAR_AS_THE_ADAPTER, config=IN_PROCESS, ERNIE_PIPELINE_SOURCE=source
    )
    assert run.status == 0, run.output[-5000:]
    assert run.built == AS_FAR_AS_THE_ADAPTER.split(",")
    [raw] = home.glob("store/raw_nemotron/*/rows.parquet")
    assert pl.scan_parquet(raw).select(pl.len()).collect().item() == 7473
    [facts] = home.glob("store/qlora_adapter/*/reports/run.json")
    values = json.loads(facts.read_text())
    assert (values["train_rows"], values["eval_rows"]) == (180, 20)
