"""Real rows, where they lie beside the checkout, as far as the split."""

from pathlib import Path

import polars as pl

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, QUICK_RECIPE, materialize

AS_FAR_AS_THE_SPLIT = "raw_nemotron,math_split"


def test_gsm8k_s_rows_are_read_filtered_and_split(shared_data: Path, tmp_path: Path) -> None:
    """7,473 real problems, of which the recipe uses 200."""
    recipe, home = tmp_path / "real.toml", tmp_path / "home"
    recipe.write_text(
        QUICK_RECIPE.replace(
            "[split]\neval_fraction = 0.1", "[split]\nrows = 200\neval_fraction = 0.1\nmax_tokens = 2048"
        )
    )
    source = str(shared_data / "gsm8k_train.nemotron.jsonl")
    run = materialize(home, recipe=recipe, select=AS_FAR_AS_THE_SPLIT, config=IN_PROCESS, ERNIE_PIPELINE_SOURCE=source)
    assert run.status == 0, run.output[-5000:]
    assert run.built == AS_FAR_AS_THE_SPLIT.split(",")
    [raw] = home.glob("store/raw_nemotron/*/rows.parquet")
    assert pl.scan_parquet(raw).select(pl.len()).collect().item() == 7473
    [split] = home.glob("store/math_split/*")
    parts = [pl.scan_parquet(split / f"{part}.parquet").select(pl.len()).collect().item() for part in ("train", "eval")]
    assert parts == [180, 20]
