"""A whole chain that trains on the model's own solutions, one round and then two, and what each change samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, QUICK_RECIPE, Home, Planned, Run, materialize, plan

RECIPE = QUICK_RECIPE.replace("[training]\n", "[training]\non = \"solutions\"\n")
    "max_steps = 4", "max_steps = 2"
)
SOLUTIONS = """
[solutions]
rows = 24
samples = 4
keep = 2
max_new_tokens = 48
min_solved = 0.1
"""
BUILT = ("raw_nemotron", "math_split", "verified_solutions", "qlora_adapter")
SAMPLING = "verified_solutions,qlora_adapter"


@dataclass(frozen=True)
class Story(Home):
    """The chain down to the adapter with one round, then with two and other keys; what was planned in between."""

    one: Run
    between: Planned
    two: Run
    after: Planned

    def rounds(self, stage: str) -> list[Path]:
        """The artifacts of a stage, the oldest first."""
        return sorted((self.home / "store" / stage).glob("[!.]*"), key=lambda folder: folder.stat().st_mtime)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("solutions")
    home, recipe = folder / "home", folder / "recipe.toml"
    recipe.write_text(RECIPE + SOLUTIONS)
    usual: dict[str, Any] = {"recipe": recipe, "config": IN_PROCESS}
    one = materialize(home, select=",".join(BUILT), **usual)
    recipe.write_text(RECIPE + SOLUTIONS + "rounds = 2\n")
    between = plan(home, recipe=recipe)
    two = materialize(home, select=SAMPLING, **usual)
    return Story(home, one, between, two, plan(home, recipe=recipe))


def test_the_adapter_is_trained_on_solutions_and_measured_by_others(story: Story) -> None:
    assert story.one.status == 0, story.one.output[-5000:]
    assert tuple(story.one.built) == BUILT
    first, trained = story.rounds("verified_solutions")[0], story.rounds("qlora_adapter")[0]
    kept, held_back = (pl.read_parquet(first / f"{part}.parquet") for part in ("train", "validation"))
    run = pl.read_json(trained / "reports" / "run.json")
    assert (run["train_rows"][0], run["eval_rows"][0]) == (kept.height, held_back.height)
    inputs = pl.read_json(trained / "manifest.json")["inputs"].struct.unnest()
    assert sorted(inputs.columns) == ["base_model", "verified_solutions"]
    split = next((story.home / "store" / "math_split").glob("[!.]*"))
    asked, held_out = (pl.read_parquet(split / f"{part}.parquet")["question"] for part in ("train", "eval"))
    assert set(kept["question"]) | set(held_back["question"]) <= set(asked)
    assert set(kept["question"]).isdisjoint(held_out)


def test_each_check_is_told(story: Story) -> None:
    for check in ("enough_solutions", "no_held_out"):
        assert f"Asset check '{check}' on 'verified_solutions' passed" in story.one.output


def test_another_round_goes_on_from_the_first(story: Story) -> None:
    assert story.between.todo == {
        "verified_solutions": "stale: recipe solutions.rounds 1 -> 2",
        "qlora_adapter": "waiting: waits for verified_solutions",
        **dict.fromkeys(("base_evaluation", "adapter_evaluation", "registered_model"), "missing: not built yet"),
    }
    assert story.two.status == 0, story.two.output[-5000:]
    assert story.two.built == ["verified_solutions", "qlora_adapter"]
    assert "round 1: reused verified_solutions" in story.two.output
    assert "round 1: reused qlora_adapter" in story.two.output
    assert "problems sampled 24, reused 0" in story.two.output
    attempts = [pl.read_parquet(folder / "attempts.parquet") for folder in story.rounds("verified_solutions")]
    assert [sorted(set(each["round"])) for each in attempts] == [[1], [1, 2]]
    assert {name for name, why in story.after.todo.items() if "missing" not in why} == set()


def test_a_recipe_with_two_rounds_builds_the_first_by_itself(story: Story, tmp_path: Path) -> None:
    """In the same step; and what was sampled there already is not sampled again."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + SOLUTIONS.replace("keep = 2", "keep = 1") + "rounds = 2\n")
    before = {folder.name for folder in story.rounds("qlora_adapter")}
    run = materialize(story.home, recipe=recipe, select="verified_solutions", config=IN_PROCESS)
    assert (run.status, run.built) == (0, ["verified_solutions"]), run.output[-5000:]
    assert "round 1: built verified_solutions" in run.output
    assert "round 1: built qlora_adapter" in run.output
    assert "problems sampled 0, reused 24" in run.output
    assert len({folder.name for folder in story.rounds("qlora_adapter")} - before) == 1


def test_too_few_solved_stop_what_is_below(story: Story, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + SOLUTIONS.replace("min_solved = 0.1", "min_solved = 1.0"))
    run = materialize(story.home, recipe=recipe, select=SAMPLING, config=IN_PROCESS)
    assert (run.status, run.built) == (1, ["verified_solutions"])
    assert "problems sampled 0, reused 24" in run.output
    failed = plan(story.home, recipe=recipe).todo
    assert failed["verified_solutions"].startswith("failed: check enough_solutions failed: ")
    assert "of 24 problems are solved (" in failed["verified_solutions"]
    assert "and solutions.min_solved asks for 100.0%; raise solutions.samples" in failed["verified_solutions"]
