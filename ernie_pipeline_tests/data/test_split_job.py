import re
import subprocess
import sys
from pathlib import Path

from ernie_pipeline.data.job import split_job
from ernie_pipeline.demo import BASE
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline_tests.data.samples import records
from ernie_pipeline_tests.data.test_make_split import contents, raw_of, recipe_of, split_of


def test_the_process_of_its_own_makes_the_same_files_and_imports_no_torch(tmp_path: Path) -> None:
    raw, recipe = raw_of(tmp_path, records(90)), recipe_of()
    here = split_of(raw, load_tokenizer(str(BASE)), recipe, "here")
    there = tmp_path / "there"
    there.mkdir()
    cache = tmp_path / "cache.json"
    job = split_job(recipe, (str(BASE), None), ((), "none"), raw=raw, out=there, cache=cache)
    job_file = write_job(tmp_path, "split", job)
    command = [sys.executable, "-X", "importtime", "-m", "ernie_pipeline.launch.child", str(job_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"polars", "transformers", "tokenizers"} <= imported
    assert not imported & {"torch", "datasets", "dagster"}
    assert contents(there) == contents(here)
