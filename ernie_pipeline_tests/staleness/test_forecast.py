"""What a refresh is estimated at: from which builds, for how much work, and when that is above the cap."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.cli.plan import plan_values, render_plan
from ernie_pipeline.recipe.budget import Budget, Price
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness import forecast as module
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.forecast import Estimate, Forecast, estimate_build, forecast, standing_costs
from ernie_pipeline.staleness.left_to_do import number_of_samples
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline_tests.staleness.chains import chain_of, constant, recipe_with, walk
from ernie_pipeline_tests.staleness.jobs import answered, keep_rows, sampled, spend, split_of, trained

TRAINING = {"max_steps": 100, "samples_per_step": 8}
WRITES: dict[str, Any] = {
    "math_split": split_of(400, 50),
    "qlora_adapter": trained(100, 80, samples=800, rows=400, gpus=1),
    "base_evaluation": answered(30, 25, made=50, gpus=1),
    "adapter_evaluation": answered(30, 25, made=50, gpus=1),
}


def base(**sections: Any) -> Recipe:
    """The recipe of these tests with some keys changed."""
    return recipe_with(**{"training": TRAINING, **sections})


@pytest.fixture
def full(store: ArtifactStore) -> ArtifactStore:
    """A store with every stage of `base()`: a training of 100 s on one GPU, evaluations of 30 s."""
    walk(chain_of(store, base()), **WRITES)
    return store


def estimates(chain: Chain) -> dict[str, tuple[float, float] | None]:
    """The seconds of each asset that is to be built by jobs."""
    return {name: each.seconds for name, each in forecast(chain, make_plan(chain)).estimates.items()}


def test_of_an_empty_store_all_is_unknown_with_what_would_be_needed(store: ArtifactStore) -> None:
    found = forecast(chain_of(store), make_plan(chain_of(store)))
    assert found.unknown == ["qlora_adapter", "base_evaluation", "adapter_evaluation"]
    assert {each.basis for each in found.estimates.values()} == {
        "never built with this base model; one build of it makes an estimate"
    }
    assert found.words(Budget()) == "unknown for qlora_adapter, base_evaluation, adapter_evaluation"
    assert not found.over(Budget(cap_s=1, text="1s")), "what is not known is for the run to find out"
    assert not store.root.exists()


def test_what_is_fresh_costs_nothing_more(full: ArtifactStore) -> None:
    chain = chain_of(full, base())
    found = forecast(chain, make_plan(chain))
    assert (found.estimates, found.words(Budget())) == ({}, "")
    assert {name: cost.gpu_seconds for name, cost in found.costs.items()} == {
        "qlora_adapter": 100,
        "base_evaluation": 30,
        "adapter_evaluation": 30,
    }
    assert standing_costs(chain) == found.costs


def test_a_training_is_scaled_by_its_steps_and_what_waits_is_conditional(full: ArtifactStore) -> None:
    chain = chain_of(full, base(training={**TRAINING, "max_steps": 50}))
    found = forecast(chain, make_plan(chain))
    adapter, evaluation = found.estimates["qlora_adapter"], found.estimates["adapter_evaluation"]
    assert (adapter.seconds, adapter.gpu_seconds, adapter.waits) == ((60, 60), (60, 60), False)
    assert (evaluation.seconds, evaluation.waits) == ((30, 30), True)
    assert "base_evaluation" not in found.estimates
    assert (found.seconds, found.gpu_seconds) == ((60, 90), (60, 90))
    assert found.words(Budget(Price(36, "EUR"))) == "60 to 90 GPU s (0.60 to 0.90 EUR)"
    assert "400 of 400 samples to do; the build of " in adapter.basis


@pytest.mark.parametrize(
    ("training", "samples"), [({"max_steps": 7}, 56), ({"max_samples": 100}, 100), ({"epochs": 1.5}, 15)]
)
def test_samples_are_counted_as_the_training_counts_them(training: dict[str, Any], samples: int) -> None:
    from ernie_pipeline.training.schedule import order

    settings = recipe_with(training=training).training
    assert number_of_samples(settings.model_dump(), 10) == order.number_of_samples(settings, 10) == samples


def test_of_a_training_that_was_cut_short_only_the_rest_is_to_do(full: ArtifactStore) -> None:
    chain = chain_of(full, base(training={**TRAINING, "max_steps": 50}))
    fingerprint = chain.provenance("qlora_adapter").fingerprint
    for step in (15, 25):
        (full.unfinished("qlora_adapter", fingerprint) / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    spend(full.unfinished("qlora_adapter", fingerprint), 1000, 1)
    assert estimates(chain)["qlora_adapter"] == (40, 40)


def test_more_rows_are_more_samples_where_the_training_goes_by_epochs(store: ArtifactStore) -> None:
    recipe, train = base(training={}), trained(100, 80, samples=400, rows=400)
    walk(chain_of(store, recipe), **{**WRITES, "qlora_adapter": train})
    chain = chain_of(store, recipe, nemotron_source="sha256:other")
    for name, write in (("raw_nemotron", lambda work, out: (out / "x").touch()), ("math_split", split_of(800, 50))):
        chain.reuse_or_build(name, write)
    again = chain_of(store, recipe, nemotron_source="sha256:other")
    assert estimates(again)["qlora_adapter"] == (180, 180)


def test_longer_answers_and_another_model_of_the_adapter_make_a_range(full: ArtifactStore) -> None:
    longer = chain_of(full, base(evaluation={"max_new_tokens": 1024}))
    assert estimates(longer)["base_evaluation"] == (30, 55)
    shorter = chain_of(full, base(evaluation={"max_new_tokens": 256}))
    assert estimates(shorter)["base_evaluation"] == (17.5, 30)
    rank = chain_of(full, base(lora={"rank": 64}))
    assert estimates(rank)["qlora_adapter"] == (50, 200)


def test_the_nearest_build_counts(full: ArtifactStore) -> None:
    slow = {**WRITES, "qlora_adapter": trained(1000, 800, samples=800, rows=400, gpus=1)}
    walk(chain_of(full, base(lora={"rank": 64})), **slow)
    assert estimates(chain_of(full, base(lora={"rank": 64}, training={**TRAINING, "seed": 1})))["qlora_adapter"] == (
        1000,
        1000,
    )
    assert estimates(chain_of(full, base(training={**TRAINING, "seed": 1})))["qlora_adapter"] == (100, 100)


def test_a_build_of_another_base_model_says_nothing(full: ArtifactStore) -> None:
    chain = chain_of(full, base(), base_model="sha256:large")
    assert estimates(chain) == dict.fromkeys(("qlora_adapter", "base_evaluation", "adapter_evaluation"))


def test_builds_on_what_is_here_come_first(full: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    walk(
        chain_of(full, base(lora={"rank": 64})), **{**WRITES, "qlora_adapter": trained(900, 800, samples=800, rows=400)}
    )
    changed = base(training={**TRAINING, "seed": 1})
    on_cpu = forecast(chain_of(full, changed), make_plan(chain_of(full, changed))).estimates["qlora_adapter"]
    assert (on_cpu.seconds, on_cpu.gpu_seconds) == ((450, 1800), (0, 0))
    monkeypatch.setattr(module, "gpus_here", lambda: 1)
    on_gpu = forecast(chain_of(full, changed), make_plan(chain_of(full, changed))).estimates["qlora_adapter"]
    assert (on_gpu.seconds, on_gpu.gpu_seconds) == ((100, 100), (100, 100))


def test_a_build_from_before_costs_were_measured_gives_at_most_twice_its_seconds(store: ArtifactStore) -> None:
    walk(chain_of(store, base()), math_split=split_of(4, 4))
    chain = chain_of(store, base(training={**TRAINING, "seed": 1}))
    seconds = make_plan(chain).assets[3].seconds
    found = forecast(chain, make_plan(chain)).estimates["qlora_adapter"]
    assert found.basis == "all that is known is how long a whole build took"
    assert found.seconds == (0, round(2 * (seconds or 0), 1))


def kept_of(chain: Chain, name: str) -> Path:
    rows = chain.rows(name)
    assert rows
    return rows.folder


def test_answers_that_are_kept_are_not_made_again(full: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 held-out rows of which 20 are kept; and 20 others, that nobody asks for."""
    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
    from ernie_pipeline.models.generation.kept import row_key

    chain = chain_of(full, base(gate={"min_gain": 0.5}, evaluation={"grading_timeout_s": 7.0}))
    assert estimates(chain)["base_evaluation"] == (30, 30)
    prompts = token_ids(load_tokenizer(str(BASE)), [f"What is {number} + 1?" for number in range(400, 420)])
    keep_rows(kept_of(chain, "base_evaluation"), [row_key(prompt, 0) for prompt in prompts])
    keep_rows(kept_of(chain, "base_evaluation"), [f"{number:032x}" for number in range(20)])
    assert estimates(chain)["base_evaluation"] == (10, 30), "not looked up for a few seconds"
    monkeypatch.setattr(module, "LOOKED_UP_ABOVE_S", 0.0)
    assert estimates(chain)["base_evaluation"] == (20, 20)
    step = estimate_build(chain, "base_evaluation")
    assert step
    assert step.seconds == (10, 30), "a step does not wait for it"


def test_attempts_are_looked_up_by_their_seeds(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
    from ernie_pipeline.models.generation.kept import row_key
    from ernie_pipeline.solutions.problems import read_problems, seeds_of

    monkeypatch.setattr(module, "LOOKED_UP_ABOVE_S", 0.0)
    on: dict[str, Any] = {"on": "solutions", **TRAINING}
    recipe = base(training=on, solutions={"rows": 10, "samples": 4})
    walk(chain_of(store, recipe), **{**WRITES, "verified_solutions": sampled(50, 40, problems=10, samples=4)})
    more = chain_of(store, base(training=on, solutions={"rows": 10, "samples": 8}))
    assert estimates(more)["verified_solutions"] == (90, 90)
    problems = read_problems(more.artifact("math_split").folder / "train.parquet", 10, recipe.solutions.seed)
    prompts = token_ids(load_tokenizer(str(BASE)), [problem.prompt_text for problem in problems])
    seeds = seeds_of(problems, 4, recipe.solutions.seed, 1)
    keep_rows(kept_of(more, "verified_solutions"), [row_key(prompts[at // 4], seed) for at, seed in enumerate(seeds)])
    assert estimates(more)["verified_solutions"] == (50, 50)


def test_solutions_that_are_not_asked_for_are_no_job(store: ArtifactStore) -> None:
    assert estimate_build(chain_of(store), "verified_solutions") is None
    assert estimate_build(chain_of(store), "math_split") is None


def test_the_rounds_before_count_with_the_solutions(store: ArtifactStore) -> None:
    on: dict[str, Any] = {"on": "solutions", **TRAINING}
    writes = {**WRITES, "verified_solutions": sampled(50, 40, problems=10, samples=4)}
    one = base(training=on, solutions={"rows": 10, "samples": 4, "rounds": 1})
    walk(chain_of(store, one), **{**writes, "qlora_adapter": trained(100, 80, samples=800, rows=40, gpus=1)})
    two = chain_of(store, base(training={**on, "seed": 1}, solutions={"rows": 10, "samples": 4, "rounds": 2}))
    found = forecast(two, make_plan(two)).estimates["verified_solutions"]
    assert found.seconds == (100 + 25, 100 + 100), "an adapter of round 1, and solutions with another LoRA"
    assert found.basis.endswith("; with the rounds before it")


def with_estimates(**seconds: tuple[float, float] | None) -> Forecast:
    return Forecast({name: Estimate(each, each, name == "waits", "") for name, each in seconds.items()})


def test_the_least_that_is_known_decides_on_the_start() -> None:
    cap = Budget(cap_s=100, text="100s")
    assert not with_estimates(a=(100, 500), waits=(50, 50), b=None).over(cap)
    assert with_estimates(a=(60, 60), b=(60, 60)).over(cap) == (
        "the refresh is not started: it is estimated at 120 s, and ERNIE_PIPELINE_BUDGET = 100s is its cap; raise it, "
        'or build a part at a time with "dagster asset materialize --select"'
    )
    assert "estimated at 120 s or more" in with_estimates(a=(120, 120), b=None).over(cap)
    money = Budget(Price(36, "EUR"), cap_money=1, text="1 EUR")
    assert "estimated at 1.20 EUR, and" in with_estimates(a=(120, 120)).over(money)


def rendered(chain: Chain, budget: Budget) -> list[str]:
    plan = make_plan(chain)
    return render_plan(plan, forecast(chain, plan), budget).splitlines()


def test_the_plan_has_the_cost_and_the_estimate_of_each_asset(full: ArtifactStore) -> None:
    budget = Budget(Price(36, "EUR"), cap_s=70, text="70s")
    lines = rendered(chain_of(full, base(training={**TRAINING, "max_steps": 50})), budget)
    assert lines[0].split() == ["asset", "state", "last", "build", "cost", "estimate", "why"]
    assert "100 GPU s (1.00 EUR)  60 GPU s (0.60 EUR)            recipe training.max_steps 100 -> 50" in lines[4]
    assert "30 GPU s (0.30 EUR)   if built, 30 GPU s (0.30 EUR)  waits for qlora_adapter" in lines[6]
    assert "Estimated for its jobs: 60 to 90 GPU s (0.60 to 0.90 EUR)." in lines
    assert lines[-1] == "It may pass ERNIE_PIPELINE_BUDGET = 70s: it is stopped there, and what it has made is kept."
    over = rendered(chain_of(full, base(training={**TRAINING, "max_steps": 50})), Budget(cap_s=9, text="9s"))
    assert over[-1] == "That is above ERNIE_PIPELINE_BUDGET = 9s: a refresh is not started."


def test_the_plan_for_programs_has_them_too(full: ArtifactStore) -> None:
    chain = chain_of(full, base(training={**TRAINING, "max_steps": 50}))
    plan = make_plan(chain)
    values = json.loads(json.dumps(plan_values(plan, forecast(chain, plan), Budget(Price(36, "EUR")))))
    adapter = values["assets"][3]
    assert (adapter["cost"]["gpu_seconds"], adapter["estimate"]["seconds"]) == (100, [60, 60])
    assert (values["assets"][0]["cost"], values["assets"][0]["estimate"]) == (None, None)
    assert values["budget"] == {
        "seconds": [60, 90],
        "gpu_seconds": [60, 90],
        "money": [0.6, 0.9],
        "currency": "EUR",
        "unknown": [],
        "cap": None,
        "over": None,
    }


def damage(write: Callable[[Path], object]) -> Callable[[ArtifactStore], None]:
    return lambda store: [write(file) for file in (store.root / ".builds").iterdir()] and None


@pytest.mark.parametrize(
    "harm",
    [damage(lambda file: file.write_text("{}\n")), damage(lambda file: file.unlink())],
    ids=["altered", "gone"],
)
def test_without_a_history_standing_artifacts_say_it(
    full: ArtifactStore, harm: Callable[[ArtifactStore], None]
) -> None:
    harm(full)
    assert estimates(chain_of(full, base(training={**TRAINING, "max_steps": 50})))["qlora_adapter"] == (60, 60)


def test_a_split_that_cannot_be_read_makes_the_estimate_unknown_and_no_error(store: ArtifactStore) -> None:
    walk(chain_of(store, base()), **{**WRITES, "math_split": constant})
    found = forecast(*(lambda chain: (chain, make_plan(chain)))(chain_of(store, base(evaluation={"rows": 7}))))
    assert found.estimates["base_evaluation"].basis.startswith("what is to be done cannot be told: ")
