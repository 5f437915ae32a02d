"""What makes a suite's artifacts stale, and what leaves them alone."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.data.suites.job import suite_problems_job
from ernie_pipeline.evaluation.suites.attempts import Problem, seed_of
from ernie_pipeline.evaluation.suites.job import suite_job
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.code import reached
from ernie_pipeline.staleness.forecast import forecast, standing_costs
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.staleness.stage import DeclaredRecipe, Work
from ernie_pipeline.staleness.stages import STAGES, all_sources, all_stages, asked_rows, stages_for
from ernie_pipeline.staleness.suites import suite_of, suites_among
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline_tests.staleness.chains import built, chain_of, walk, writes
from ernie_pipeline_tests.staleness.jobs import sampled

PARTS = ("problems", "base", "adapter", "comparison")


def suites(*names: str, **changes: Any) -> Recipe:
    """Suites of files; `changes` are of the first one's keys."""
    tables = {name: {"source": {"path": f"{name}.jsonl"}} for name in names}
    if changes:
        tables[names[0]] |= changes
    return parse_recipe({"suites": tables}, where="test")


def assets(name: str, *parts: str) -> list[str]:
    return [f"suite_{name}_{part}" for part in parts]


@pytest.fixture
def full(store: ArtifactStore) -> ArtifactStore:
    """Everything of a recipe with two suites."""
    assert built(walk(chain_of(store, suites("one", "two")))) == [
        *STAGES,
        *assets("one", *PARTS),
        *assets("two", *PARTS),
    ]
    return store


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"question": "problem"}, ["problems"]),
        ({"extract": "boxed"}, ["problems"]),
        ({"level": "level"}, ["problems"]),
        ({"rows": 5}, ["problems"]),
        ({"instruction": "Box it. "}, ["problems"]),
        ({"samples": 4}, ["base", "adapter"]),
        ({"temperature": 0.9}, ["base", "adapter"]),
        ({"max_new_tokens": 9}, ["base", "adapter"]),
        ({"seed": 1}, ["base", "adapter"]),
        ({"grading_timeout_s": 1.0}, ["base", "adapter"]),
        ({"source": {"path": "moved.jsonl"}}, []),  # reaches the chain as the version of its set
    ],
    ids=str,
)
def test_a_changed_setting_rebuilds_what_reads_it_of_this_suite_alone(
    full: ArtifactStore, change: dict[str, Any], moved: list[str]
) -> None:
    assert built(walk(chain_of(full, suites("one", "two", **change)))) == assets("one", *moved)


def test_every_key_of_a_suite_moves_a_stage_or_its_set_s_version() -> None:
    recipe = suites("one")
    declared = {path for stage in all_stages(recipe).values() for path in stage.recipe if path.startswith("suites.")}
    observed = {s.section for s in all_sources(recipe).values() if s.section.startswith("suites.")}
    assert declared | observed == {f"suites.one.{key}" for key in type(recipe.suites["one"]).model_fields}
    assert not declared & observed


def test_adding_a_suite_or_taking_one_away_touches_nothing_else(full: ArtifactStore) -> None:
    assert built(walk(chain_of(full, suites("one", "two", "three")))) == assets("three", *PARTS)
    assert built(walk(chain_of(full, suites("two")))) == []
    assert built(walk(chain_of(full))) == []


def test_another_set_rebuilds_its_own_suite(full: ArtifactStore) -> None:
    recipe = suites("one", "two")
    other = writes("2")
    again = walk(chain_of(full, recipe, suite_two_set="sha256:other"), suite_two_problems=other, suite_two_base=other)
    assert built(again) == assets("two", *PARTS)


def test_a_set_whose_problems_come_out_the_same_costs_no_answer(full: ArtifactStore) -> None:
    assert built(walk(chain_of(full, suites("one", "two"), suite_two_set="sha256:moved"))) == assets("two", "problems")


def test_another_adapter_rebuilds_the_adapter_s_answers_and_not_the_base_s(full: ArtifactStore) -> None:
    recipe = parse_recipe({**suites("one", "two").model_dump(mode="json"), "training": {"seed": 9}}, where="test")
    again = built(walk(chain_of(full, recipe), qlora_adapter=writes("other")))
    assert [name for name in again if suite_of(name)] == [*assets("one", "adapter"), *assets("two", "adapter")]


def test_another_split_rebuilds_the_comparison_and_no_answer(full: ArtifactStore) -> None:
    recipe = parse_recipe({**suites("one", "two").model_dump(mode="json"), "split": {"seed": 9}}, where="test")
    again = built(walk(chain_of(full, recipe), math_split=writes("other")))
    assert [name for name in again if suite_of(name)] == [*assets("one", "comparison"), *assets("two", "comparison")]


@pytest.mark.parametrize("part", ["base", "adapter"])
def test_what_decides_a_row_decides_the_stage(part: str) -> None:
    stage = stages_for(suites("one"))[f"suite_one_{part}"]
    assert stage.by_row
    assert {*stage.by_row.inputs} == {*stage.inputs} - {"suite_one_problems"}
    assert {*stage.by_row.recipe} <= {*stage.recipe}
    assert {*stage.by_row.libraries} <= {*stage.libraries}
    assert reached(stage.by_row.code) <= reached(stage.code) | {*stage.by_row.code}


def test_what_a_suite_s_stages_reach_is_their_work_and_nothing_of_dagsters_side() -> None:
    where_and_how = ("orchestration", "definitions", "launch", "store", "staleness", "recipe")
    for name, stage in all_stages(suites("one")).items():
        wrong = [m for m in reached(stage.code) if m.split(".")[1] in where_and_how]
        assert not wrong, f"{name} would be rebuilt for a change of {wrong}"
    answers = reached(all_stages(suites("one"))["suite_one_base"].code)
    assert {"ernie_pipeline.models.peft.backend", "ernie_pipeline.grading.judge"} <= answers
    assert "ernie_pipeline.evaluation.suites.compare" not in answers


def rows_of(store: ArtifactStore, recipe: Recipe, asset: str) -> Path:
    kept = chain_of(store, recipe).rows(asset)
    assert kept
    return kept.folder


def test_answers_are_kept_for_another_number_of_samples_and_temperature_but_not_for_another_limit(
    full: ArtifactStore,
) -> None:
    def folder(**changes: Any) -> Path:
        return rows_of(full, suites("one", "two", **changes), "suite_one_base")

    assert folder() == folder(samples=8) == folder(temperature=1.0) == folder(seed=1) == folder(question="x")
    assert folder() != folder(max_new_tokens=9)
    assert folder() != rows_of(full, suites("one", "two"), "suite_one_adapter")
    assert {folder().name} <= (asked_rows(chain_of(full, suites("one", "two"))) or set())


def test_the_names_of_assets_are_taken_apart_again() -> None:
    assert suite_of("suite_a_base_problems") == ("a_base", "problems")
    assert suite_of("suite_a_base") == ("a", "base")
    assert [suite_of(name) for name in (*STAGES, "suite_base", "suite_a_other", "a_base")] == [None] * (len(STAGES) + 3)
    assert suites_among(all_stages(suites("one", "two"))) == ["one", "two"]


PROBLEMS = [Problem(f"{n:016x}", f"{n}?", str(n), "integer", None, None, f"prompt {n} ") for n in range(10)]


def problems_of(count: int) -> Any:
    def write(work: Work, out: Path) -> None:
        pq.write_table(pa.Table.from_pylist([each._asdict() for each in PROBLEMS[:count]]), out / "problems.parquet")

    return write


def test_a_suite_is_estimated_by_its_answers(store: ArtifactStore) -> None:
    recipe = suites("one", samples=3)
    made = {name: sampled(20, 10, problems=10, samples=4) for name in assets("one", "base", "adapter")}
    walk(chain_of(store, recipe), suite_one_problems=problems_of(10), **made)
    chain = chain_of(store, suites("one", samples=7))
    found = forecast(chain, make_plan(chain))
    assert {name: each.seconds for name, each in found.estimates.items()} == dict.fromkeys(
        assets("one", "base", "adapter"), (30, 30)
    )
    assert "80 of 80 answers to do; the build of " in found.estimates["suite_one_base"].basis
    before = chain_of(store, recipe)
    assert {*forecast(before, make_plan(before)).costs} == {*assets("one", "base", "adapter")}
    assert standing_costs(before) == {}, "no registered model waited for them"
    longer = chain_of(store, suites("one", samples=3, max_new_tokens=1024))
    assert forecast(longer, make_plan(longer)).estimates["suite_one_base"].seconds == (20, 30)


def test_a_suite_that_was_never_answered_is_unknown(store: ArtifactStore) -> None:
    found = forecast(chain_of(store, suites("one")), make_plan(chain_of(store, suites("one"))))
    assert found.unknown[-2:] == assets("one", "base", "adapter")


def test_a_seed_is_of_the_prompt_and_of_how_it_is_sampled() -> None:
    one, two = PROBLEMS[:2]
    suite = suites("one").suites["one"]
    hotter, other = (suite.model_copy(update=change) for change in ({"temperature": 0.9}, {"seed": 1}))
    seeds = [seed_of(one, suite, 1), seed_of(one, suite, 2), seed_of(two, suite, 1)]
    seeds += [seed_of(one, hotter, 1), seed_of(one, other, 1)]
    assert len({*seeds}) == 5
    assert all(0 < seed < 2**62 for seed in seeds)
    assert seed_of(one, suite, 0) == seed_of(two, hotter, 0) == 0
    assert seed_of(one, suite.model_copy(update={"samples": 9, "max_new_tokens": 1}), 1) == seeds[0]


def seen_by(asset: str, recipe: Recipe) -> Any:
    """What the stage may read of the recipe."""
    stage, sources = stages_for(recipe)[asset], all_sources(recipe)
    covered = {sources[name].section for name in stage.inputs if name in sources}
    return DeclaredRecipe(recipe, frozenset({*stage.recipe, *covered}), asset)


def test_jobs_are_made_of_what_the_stage_declares_and_cross_a_process_border(tmp_path: Path) -> None:
    recipe = suites("one", samples=3, question=["a", "b"])
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"backend": "peft"})})
    version, out = f"commit:{'c' * 40}", tmp_path / "out"
    read = suite_problems_job(seen_by("suite_one_problems", recipe), "one", "sha256:1", ("demo", None), out)
    assert (read.source, read.columns.question) == (recipe.suites["one"].source, ("a", "b"))
    answers = {
        part: suite_job(
            seen_by(f"suite_one_{part}", recipe), "one", version, tmp_path, adapter, problems=tmp_path, out=out
        )
        for part, adapter in (("base", None), ("adapter", tmp_path))
    }
    assert answers["base"].answers.samples == 3
    assert (answers["base"].spec.adapter, answers["adapter"].spec.adapter) == (None, tmp_path / "adapter")
    for job in (read, *answers.values()):
        assert type(job).model_validate_json(job.model_dump_json()) == job


def test_a_stage_sees_nothing_of_a_suite_that_it_does_not_declare() -> None:
    recipe = suites("one", "two")
    with pytest.raises(RuntimeError, match=r"suite_one_base reads recipe\.suites\.one\.question, which"):
        _ = seen_by("suite_one_base", recipe).suites["one"].question
    with pytest.raises(RuntimeError, match=r"suite_one_base reads recipe\.suites\.two, which"):
        _ = seen_by("suite_one_base", recipe).suites["two"]
