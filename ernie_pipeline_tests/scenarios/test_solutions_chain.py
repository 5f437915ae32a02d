"""A whole chain that trains on its own solutions, in two rounds; fewer rounds and other keys reuse what it made."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, QUICK_RECIPE, Home, Run, materialize, plan

RECIPE = QUICK_RECIPE.replace("[training]\n", '[training]\non = "solutions"\n')
SOLUTIONS = """
[solutions]
rows = 20
samples = 4
keep = 2
max_new_tokens = 48
"""
DATA, ROUND = ("raw_nemotron", "math_split"), ("verified_solutions", "qlora_adapter")


@dataclass(frozen=True)
class Story(Home):
    """The chain down to the adapter, with two rounds."""

    run: Run

    def rounds(self, stage: str) -> list[Path]:
        """The artifacts of a stage, the oldest first."""
        return sorted((self.home / "store" / stage).glob("[!.]*"), key=lambda folder: folder.stat().st_mtime)


def write_recipe(folder: Path, solutions: str) -> Path:
    (folder / "recipe.toml").write_text(RECIPE + SOLUTIONS + solutions)
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("solutions")
    recipe = write_recipe(folder, "rounds = 2\n")
    run = materialize(folder / "home", select=",".join((*DATA, *ROUND)), recipe=recipe, config=IN_PROCESS)
    return Story(folder / "home", run)


def test_the_rounds_before_are_built_in_the_same_step(story: Story) -> None:
    assert story.run.status == 0, story.run.output[-5000:]
    assert tuple(story.run.built) == (*DATA, *ROUND)
    for name in ROUND:
        assert f"round 1: built {name}" in story.run.output
        assert len(story.rounds(name)) == 2
    attempts = [pl.read_parquet(folder / "attempts.parquet") for folder in story.rounds("verified_solutions")]
    assert [sorted(set(each["round"])) for each in attempts] == [[1], [1, 2]]
    for check in ("enough_solutions", "no_held_out"):
        assert f"Asset check '{check}' on 'verified_solutions' passed" in story.run.output


def test_the_adapter_is_trained_on_solutions_and_measured_by_others(story: Story) -> None:
    solutions, trained = (story.rounds(name)[-1] for name in ROUND)
    kept, held_back = (pl.read_parquet(solutions / f"{part}.parquet") for part in ("train", "validation"))
    run = pl.read_json(trained / "reports" / "run.json")
    assert (run["train_rows"][0], run["eval_rows"][0]) == (kept.height, held_back.height)
    inputs = pl.read_json(trained / "manifest.json")["inputs"].struct.unnest()
    assert sorted(inputs.columns) == ["base_model", "verified_solutions"]
    split = story.artifact("math_split")
    asked, held_out = (pl.read_parquet(split / f"{part}.parquet")["question"] for part in ("train", "eval"))
    assert set(kept["question"]) | set(held_back["question"]) <= set(asked)
    assert set(kept["question"]).isdisjoint(held_out)


def test_fewer_rounds_are_there_already(story: Story, tmp_path: Path) -> None:
    for recipe in (write_recipe(tmp_path, ""), write_recipe(tmp_path, "rounds = 2\n")):
        assert not {*DATA, *ROUND} & {*plan(story.home, recipe=recipe).todo}


def test_too_few_solved_stop_what_is_below_and_nothing_is_sampled_for_that(story: Story, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "min_solved = 1.0\n")
    run = materialize(story.home, recipe=recipe, select=",".join(ROUND), config=IN_PROCESS)
    assert (run.status, run.built) == (1, ["verified_solutions"])
    assert "problems sampled 0, reused 20" in run.output
    failed = plan(story.home, recipe=recipe).todo["verified_solutions"]
    assert failed.startswith("failed: check enough_solutions failed: ")
    assert "and solutions.min_solved asks for 100.0 %; raise solutions.samples" in failed
