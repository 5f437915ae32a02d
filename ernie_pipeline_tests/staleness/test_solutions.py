"""What makes solutions stale and what samples anew: with answers, with solutions, and over several rounds."""

import shutil
from collections.abc import Mapping
from typing import Any

import pytest

from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.chain import Chain, NotThereError
from ernie_pipeline.staleness.plan import RefreshPlan, asked_for, make_plan
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER, EARLIER_ROUND, EARLIER_SOLUTIONS, Work
from ernie_pipeline.staleness.stages import asked_rows
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.housekeeping.artifacts import prune, take_stock
from ernie_pipeline_tests.staleness.chains import built, chain_of, constant, recipe_with, walk, writes

SOLUTIONS = "verified_solutions"
ROUND = (SOLUTIONS, "qlora_adapter")


def on_solutions(training: Mapping[str, Any] | None = None, **solutions: Any) -> Recipe:
    return recipe_with(training={"on": "solutions", **(training or {})}, solutions=solutions)


def todo(plan: RefreshPlan) -> dict[str, str]:
    return {a.asset: f"{a.state}: {'; '.join(a.reasons)}" for a in plan.assets if a.state != "fresh"}


def build(chain: Chain) -> list[str]:
    """Build as the assets do, the rounds before first; what was built, each with its round."""
    done: list[str] = []
    for each in reversed([*chain.rounds()]):
        number = each.recipe.solutions.rounds
        names = [*each.stages] if each is chain else ["raw_nemotron", "math_split", *ROUND]
        for name in names:
            text = f"{name} {number if name in ROUND else ''}"
            if not each.reuse_or_build(name, writes(text)).reused:
                done.append(f"{name} {number}" if name in ROUND else name)
    return done


@pytest.fixture
def store(tmp_path: Any) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def test_with_answers_no_key_of_the_section_makes_anything_stale(store: ArtifactStore) -> None:
    walk(chain_of(store))
    changed = recipe_with(solutions={"samples": 2, "keep": 1, "temperature": 0.5, "rounds": 2, "seed": 1})
    assert todo(make_plan(chain_of(store, changed))) == {}
    assert chain_of(store, changed).earlier is None


def test_with_answers_it_reads_nothing_and_nothing_reads_it(store: ArtifactStore) -> None:
    chain = chain_of(store)
    assert not chain.reuse_or_build(SOLUTIONS, constant).reused
    assert chain.provenance(SOLUTIONS).inputs == {}
    assert chain.rows(SOLUTIONS) is None
    readers = [name for name, stage in chain.stages.items() if SOLUTIONS in stage.inputs]
    assert readers == []


def test_to_train_on_solutions_is_told_as_that_alone(store: ArtifactStore) -> None:
    walk(chain_of(store))
    changed = "stale: recipe training.on answers -> solutions"
    found = todo(make_plan(chain_of(store, on_solutions())))
    assert (found[SOLUTIONS], found["qlora_adapter"]) == (changed, changed)
    assert list(found) == [SOLUTIONS, "qlora_adapter", "adapter_evaluation", "registered_model"]


@pytest.mark.parametrize("key", ["keep", "min_solved", "samples", "rows", "validation_fraction", "grading_timeout_s"])
def test_what_chooses_among_attempts_makes_it_stale_and_samples_none_anew(store: ArtifactStore, key: str) -> None:
    walk(chain_of(store, on_solutions(keep=2)))
    value = {"min_solved": 0.25, "validation_fraction": 0.25, "grading_timeout_s": 2.0}.get(key, 5)
    changed = chain_of(store, on_solutions(**{"keep": 2, key: value}))
    assert todo(make_plan(changed))[SOLUTIONS].startswith(f"stale: recipe solutions.{key} ")
    assert changed.rows(SOLUTIONS) == chain_of(store, on_solutions(keep=2)).rows(SOLUTIONS)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"max_new_tokens": 5},
    ],
    ids=str,
)
def test_what_decides_an_attempt_samples_all_anew(store: ArtifactStore, change: dict[str, Any]) -> None:
    walk(chain_of(store, on_solutions()))
    assert chain_of(store, on_solutions(**change)).rows(SOLUTIONS) != chain_of(store, on_solutions()).rows(SOLUTIONS)


def test_how_is_trained_leaves_the_solutions(store: ArtifactStore) -> None:
    walk(chain_of(store, on_solutions()))
    found = todo(make_plan(chain_of(store, on_solutions({"learning_rate": 1e-4}))))
    assert list(found) == ["qlora_adapter", "adapter_evaluation", "registered_model"]


def test_solutions_that_came_out_the_same_leave_the_adapter(store: ArtifactStore) -> None:
    walk(chain_of(store, on_solutions()))
    assert built(walk(chain_of(store, on_solutions(keep=3)))) == [SOLUTIONS]
    assert built(walk(chain_of(store, on_solutions(keep=2)), verified_solutions=writes("others"))) == [
        SOLUTIONS,
        "qlora_adapter",
    ]


def test_other_held_out_rows_alone_train_nothing_anew(store: ArtifactStore) -> None:
    walk(chain_of(store, on_solutions()))
    changed = recipe_with(training={"on": "solutions"}, split={"seed": 1})
    assert built(walk(chain_of(store, changed), math_split=writes("other held-out rows"))) == [
        "math_split",
        SOLUTIONS,
        "base_evaluation",
        "adapter_evaluation",
        "registered_model",
    ]


def test_each_round_is_built_once_and_fewer_rounds_reuse_them(store: ArtifactStore) -> None:
    three = chain_of(store, on_solutions(rounds=3))
    assert [name for name in build(three) if name.startswith(ROUND)] == [
        f"{name} {number}" for number in (1, 2, 3) for name in ROUND
    ]
    assert todo(make_plan(chain_of(store, on_solutions(rounds=3)))) == {}
    assert build(chain_of(store, on_solutions(rounds=3))) == []
    for fewer in (2, 1):
        assert not any(name.startswith(ROUND) for name in todo(make_plan(chain_of(store, on_solutions(rounds=fewer)))))


def test_a_round_sees_the_adapter_and_the_attempts_of_the_one_before(store: ArtifactStore) -> None:
    build(chain_of(store, on_solutions()))
    seen: list[Mapping[str, Artifact]] = []

    def look(work: Work, out: Any) -> None:
        seen.append(work.artifacts)
        assert (work.recipe.lora.rank, work.recipe.solutions.rounds) == (16, 2)
        constant(work, out)

    chain = chain_of(store, on_solutions(rounds=2))
    chain.reuse_or_build(SOLUTIONS, look)
    first = chain_of(store, on_solutions())
    assert seen[0][EARLIER_ADAPTER].folder == first.artifact("qlora_adapter").folder
    assert seen[0][EARLIER_SOLUTIONS].folder == first.artifact(SOLUTIONS).folder
    assert first.rows(SOLUTIONS) != chain.rows(SOLUTIONS)
    rows = [each.rows(SOLUTIONS) for each in chain.rounds()]
    asked = asked_rows(chain)
    assert asked is None or {each.folder.name for each in rows if each} <= asked


def test_a_round_before_that_is_not_built_is_told_as_the_reason(store: ArtifactStore) -> None:
    plan = make_plan(chain_of(store, on_solutions(rounds=2)))
    assert set(todo(plan).values()) == {"missing: not built yet"}
    build(chain_of(store, on_solutions()))
    found = todo(make_plan(chain_of(store, on_solutions(rounds=2))))
    assert found[SOLUTIONS] == "stale: recipe solutions.rounds 1 -> 2"
    assert found["qlora_adapter"] == f"waiting: waits for {SOLUTIONS}"

    two = chain_of(store, on_solutions(rounds=2))
    build(two)
    assert two.earlier is not None
    shutil.rmtree(two.earlier.artifact("qlora_adapter").folder)
    again = chain_of(store, on_solutions(rounds=2))
    plan = make_plan(again)
    assert todo(plan)[SOLUTIONS] == f"waiting: waits for {EARLIER_ADAPTER}, stale: artifact deleted"
    assert plan.to_build[0] == SOLUTIONS
    assert [f for f in asked_for(again, plan).values() if f], "its fingerprint follows from the last build"
    with pytest.raises(NotThereError, match=r'^qlora_adapter of round 1 for this recipe: .* --select "\*verified_sol'):
        again.reuse_or_build(SOLUTIONS, constant)
    assert build(chain_of(store, on_solutions(rounds=2))) == ["qlora_adapter 1"], "it came out as it was"


def test_other_rows_make_all_rounds_wait(store: ArtifactStore) -> None:
    build(chain_of(store, on_solutions(rounds=2)))
    found = todo(make_plan(chain_of(store, on_solutions(rounds=2), nemotron_source="sha256:6")))
    assert found[SOLUTIONS] == f"waiting: waits for math_split, {', '.join(EARLIER_ROUND)}"


def test_the_store_s_keeper_keeps_the_rounds_before(store: ArtifactStore) -> None:
    two = chain_of(store, on_solutions(rounds=2))
    build(two)
    build(chain_of(store, on_solutions(rounds=1, keep=3)))  # the newest of each asset
    plan = make_plan(two)
    prune(store, take_stock(store, asked_for(two, plan), {}), delete=True)
    assert todo(make_plan(chain_of(store, on_solutions(rounds=2)))) == {}


def test_what_is_kept_at_most_in_a_round_before_is_what_it_can_have() -> None:
    chain = chain_of(ArtifactStore(None), on_solutions(samples=2, keep=4, rounds=2))  # type: ignore[arg-type]
    assert chain.earlier is not None
    assert chain.earlier.recipe.solutions.keep == 2
    Recipe.model_validate(chain.earlier.recipe.model_dump())
