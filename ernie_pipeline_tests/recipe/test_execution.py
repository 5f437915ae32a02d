"""How the work is computed: a profile chosen by the device, single values over it, and none of it in a fingerprint but
which program makes answers."""

from pathlib import Path
from typing import Any, get_args

import pytest

from ernie_pipeline.orchestration.gpu import ExecutionConfig, GpuResource
from ernie_pipeline.recipe.execution import (
    PROFILES,
    Execution,
    ExecutionOverrides,
    ProfileName,
    profile_for,
    resolve_execution,
)
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.staleness.stages import STAGES, open_chain
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.staleness.chains import walk

NOTHING = ExecutionOverrides()
ALL = {
    "profile": "24gb",
    "micro_batch": 3,
    "packing": False,
    "pack_tokens": 999,
    "memory_limit_gib": 5.5,
    "gradient_checkpointing": True,
    "generation_rows": 7,
    "checkpoint_s": 12.5,
}
GENERATOR = "generator"
"""Not in the launchpad, which comes after the fingerprint."""


def test_each_profile_has_a_name_and_the_overrides_say_the_same_keys_and_a_profile() -> None:
    assert set(PROFILES) == {*get_args(ProfileName)}
    assert {*ExecutionOverrides.model_fields} == {"profile", *Execution.model_fields} == {*ALL, GENERATOR}
    assert {*ExecutionConfig.model_fields} == {*ALL}  # what the launchpad takes


@pytest.mark.parametrize(
    ("gib", "name"),
    [(None, "cpu"), (8, "24gb"), (23.7, "24gb"), (39.5, "40gb"), (47.5, "40gb"), (79.1, "80gb"), (139.8, "80gb")],
)
def test_the_profile_is_that_of_the_device(gib: float | None, name: ProfileName) -> None:
    """GPUs of 24, 40, 48, 80 and 141 GB, by what their drivers say."""
    assert profile_for(gib) == name
    assert resolve_execution(NOTHING, gib) == PROFILES[name]


@pytest.mark.parametrize("gib", [None, 23.7, 79.1])
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_by_name_goes_before_the_device_s(gib: float | None, name: ProfileName) -> None:
    assert resolve_execution(ExecutionOverrides(profile=name), gib) == PROFILES[name]


@pytest.mark.parametrize("key", [key for key in ALL if key != "profile"])
def test_a_single_value_goes_before_the_profile_s_and_leaves_the_others(key: str) -> None:
    """False is said too: only None is not."""
    for name, profile in PROFILES.items():
        found = resolve_execution(ExecutionOverrides(**{"profile": name, key: ALL[key]}), 79.1)
        assert found.model_dump() == profile.model_dump() | {key: ALL[key]}


def launchpad(**execution: Any) -> GpuResource:
    """The resource as a run's configuration sets it."""
    settings: dict[str, Any] = {"execution": ExecutionConfig(**execution)}
    return GpuResource(**settings)


def toml(folder: Path, text: str) -> str:
    (folder / "recipe.toml").write_text(text)
    return str(folder / "recipe.toml")


def test_the_recipe_s_file_may_say_it(tmp_path: Path) -> None:
    recipe = load_recipe(toml(tmp_path, '[execution]\nprofile = "40gb"\nmicro_batch = 4\npacking = false\n'))
    assert recipe.execution.said() == {"profile": "40gb", "micro_batch": 4, "packing": False}
    assert load_recipe("demo").execution == NOTHING


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("24gb", {"profile": "24gb"}),
        ("micro_batch = 4, packing = true", {"micro_batch": 4, "packing": True}),
        ('profile = "80gb", memory_limit_gib = 60', {"profile": "80gb", "memory_limit_gib": 60.0}),
        ('generator = "vllm"', {"generator": "vllm"}),
    ],
)
def test_the_environment_may_say_it(text: str, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_EXECUTION", text)
    assert Settings.from_environment().load_recipe().execution.said() == said
    monkeypatch.setenv("ERNIE_PIPELINE_EXECUTION", "")
    assert Settings.from_environment().load_recipe().execution == NOTHING


def test_the_environment_goes_before_the_file_and_the_launchpad_before_both(tmp_path: Path) -> None:
    file = toml(tmp_path, "[execution]\nmicro_batch = 1\npack_tokens = 1\ngeneration_rows = 1\n")
    said = load_recipe(file, execution="pack_tokens = 2, generation_rows = 2").execution
    assert said.said() == {"micro_batch": 1, "pack_tokens": 2, "generation_rows": 2}
    launched = launchpad(generation_rows=3).execution_over(said)
    assert launched.said() == {"micro_batch": 1, "pack_tokens": 2, "generation_rows": 3}
    assert launchpad().execution_over(said) == said


def test_what_the_launchpad_switches_off_is_off() -> None:
    said = ExecutionOverrides(packing=True, gradient_checkpointing=True)
    launched = launchpad(packing=False).execution_over(said)
    assert launched.said() == {"packing": False, "gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("12gb", "execution.profile = '12gb': input should be 'cpu', '24gb', '40gb' or '80gb'"),
        ("micro_bach = 4", "unknown key execution.micro_bach; did you mean 'micro_batch'?"),
        ("generator = 'VLLM'", "execution.generator = 'VLLM': string should match pattern '^(own|vllm|vllm==[0-9]"),
        ("packing = 3.5", "execution.packing = 3.5: input should be a valid boolean"),
        ("micro_batch = 4 packing", "ERNIE_PIPELINE_EXECUTION = 'micro_batch = 4 packing' is neither the name of a "),
    ],
)
def test_a_wrong_word_in_the_environment_is_said_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(PipelineError) as told:
        load_recipe("demo", execution=text)
    assert sentence in str(told.value)
    assert str(told.value).startswith(f"ERNIE_PIPELINE_EXECUTION = {text!r}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ['execution = "24gb"\n', "[[execution]]\nmicro_batch = 4\n"])
def test_what_is_no_table_in_the_file_is_said_whatever_the_environment_has(tmp_path: Path, text: str) -> None:
    for environment in (None, "24gb"):
        with pytest.raises(
            PipelineError, match=r"^recipe .*recipe\.toml: execution = .* is no table; write \[execution\] and"
        ):
            load_recipe(toml(tmp_path, text), execution=environment)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("profile", "a100", "execution.profile = 'a100': input should be 'cpu', '24gb', '40gb' or '80gb'"),
        ("micro_batch", 0, "execution.micro_batch = 0: input should be greater than 0"),
        ("checkpoint_s", -1.0, "execution.checkpoint_s = -1.0: input should be greater than 0"),
    ],
)
def test_a_value_of_the_launchpad_that_cannot_be_is_said_in_one_sentence(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(PipelineError) as told:
        launchpad(**{key: value}).execution_over(NOTHING)
    assert str(told.value) == f"the resource gpu: {sentence}"


@pytest.mark.parametrize("key", [*ALL])
def test_a_change_of_it_leaves_every_stage_as_it_was(tmp_path: Path, key: str) -> None:
    """In the recipe's file and in the environment; a change of the recipe itself shows that this could tell."""

    def settings(recipe: str, execution: str | None = None) -> Settings:
        return Settings(tmp_path / "home", recipe, None, f"sqlite:///{tmp_path}/mlflow.db", execution=execution)

    def declared(place: Settings) -> dict[str, str]:
        chain = open_chain(place, ask_registry=False)
        return {name: chain.declared_version(name) for name in STAGES}

    def stale(place: Settings) -> list[str]:
        return [
            asset.asset for asset in make_plan(open_chain(place, ask_registry=False)).assets if asset.state != "fresh"
        ]

    plain = settings(toml(tmp_path, '[quantization]\ncompute_dtype = "float32"\n'))
    walk(open_chain(plain, ask_registry=False))
    before = declared(plain)
    assert stale(plain) == []
    value = f'"{ALL[key]}"' if key == "profile" else str(ALL[key]).lower()
    by_environment = settings(plain.recipe, f"{key} = {value}")
    assert by_environment.load_recipe() != plain.load_recipe()
    assert (declared(by_environment), stale(by_environment)) == (before, [])

    by_file = settings(toml(tmp_path, f'[quantization]\ncompute_dtype = "float32"\n[execution]\n{key} = {value}\n'))
    assert (declared(by_file), stale(by_file)) == (before, [])

    other = settings(toml(tmp_path, '[quantization]\ncompute_dtype = "float32"\n[training]\nsamples_per_step = 4\n'))
    assert {name for name, version in declared(other).items() if version != before[name]} == {"qlora_adapter"}
    assert "qlora_adapter" in stale(other)


def test_the_generator_makes_stale_what_it_answers_for_and_its_rows_and_nothing_else(tmp_path: Path) -> None:
    """As another backend does: `vllm` is resolved to a version, and each version answers in its own way."""
    text = '[quantization]\ncompute_dtype = "float32"\n[training]\non = "solutions"\n'
    recipe = toml(tmp_path, text)

    def chain(generator: str | None) -> Chain:
        execution = f"generator = '{generator}'" if generator else None
        return open_chain(
            Settings(tmp_path / "home", recipe, None, f"sqlite:///{tmp_path}/mlflow.db", execution=execution),
            ask_registry=False,
        )

    def declared(generator: str | None) -> dict[str, str]:
        return {name: chain(generator).declared_version(name) for name in STAGES}

    walk(chain(None))
    own, vllm, later = declared(None), declared("vllm==0.23.0"), declared("vllm==0.32.0")
    assert declared("own") == own
    answers = {"verified_solutions", "base_evaluation", "adapter_evaluation"}
    assert {name for name in STAGES if vllm[name] != own[name]} == answers
    assert {name for name in STAGES if vllm[name] != later[name]} == answers
    for name in ("verified_solutions", "base_evaluation"):
        rows = [chain(each).rows(name) for each in ("own", "vllm==0.23.0", "vllm==0.32.0")]
        assert len({each.folder for each in rows if each}) == 3
    reasons = {
        each.asset: str(each.reasons) for each in make_plan(chain("vllm==0.23.0")).assets if each.asset in answers
    }
    assert "execution.generator own -> vllm==0.23.0" in reasons["base_evaluation"]


def test_a_generator_that_is_not_there_is_told_before_anything_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_VLLM_PYTHON", "/nowhere/python")
    place = Settings(tmp_path / "home", "demo", None, "sqlite:///mlflow.db", execution="generator = 'vllm'")
    with pytest.raises(PipelineError, match="ERNIE_PIPELINE_VLLM_PYTHON = '/nowhere/python' is no Python"):
        open_chain(place, ask_registry=False)
