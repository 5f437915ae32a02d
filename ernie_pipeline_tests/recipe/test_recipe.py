from datetime import date
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from ernie_pipeline.recipe.load import PRESETS, load_recipe, parse_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.suites import INSTRUCTION
from ernie_pipeline.utils.errors import PipelineError

DEMO: dict[str, dict[str, Any]] = {
    "source": {
        "kind": "demo",
        "path": "",
        "dataset": "",
        "config": "",
        "revision": "main",
        "split": "train",
        "rows": 2400,
        "seed": 0,
        "max_bad_rows": 0,
        "question": "",
        "answer": "",
        "messages": "",
        "extract": "",
        "instruction": INSTRUCTION,
    },
    "base_model": {"name": "demo", "revision": "main"},
    "filters": {
        "min_question_chars": 10,
        "max_question_chars": 2000,
        "max_answer_chars": 200,
        "multi_part": True,
        "proof": True,
        "yes_no": True,
        "multiple_choice": True,
        "reference": True,
        "non_english": True,
        "conflicting_answers": True,
        "unverifiable_answer": False,
    },
    "near_duplicates": {"enabled": True, "threshold": 0.8, "shingle_words": 5, "permutations": 128, "keep": "one"},
    "benchmarks": {"sets": []},
    "decontamination": {"enabled": True, "overlap": 0.6, "own_evaluation": True},
    "split": {"rows": 0, "eval_fraction": 0.11, "stratify": True, "seed": 3407, "max_tokens": 128},
    "quantization": {"bits": 4, "type": "nf4", "double": False, "compute_dtype": "float32"},
    "lora": {
        "rank": 16,
        "alpha": 16,
        "dropout": 0.0,
        "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    },
    "training": {
        "backend": "auto",
        "on": "solutions",
        "method": "supervised",
        "samples_per_step": 16,
        "max_steps": 100,
        "max_samples": 0,
        "epochs": 1.0,
        "learning_rate": 1e-3,
        "lr_scheduler": "cosine",
        "warmup_fraction": 0.05,
        "optimizer": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "completion_only_loss": True,
        "fp8": False,
        "eval_every": 50,
        "log_every": 10,
        "keep": "best",
        "seed": 3407,
    },
    "solutions": {
        "rows": 1200,
        "samples": 4,
        "keep": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 112,
        "seed": 3407,
        "rounds": 1,
        "min_solved": 0.05,
        "validation_fraction": 0.05,
        "grading_timeout_s": 5.0,
    },
    "grpo": {
        "group": 8,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 1024,
        "seed": 3407,
        "format_reward": 0.1,
        "normalization": "dr_grpo",
        "filter_groups": True,
        "max_draws": 3,
        "kl_to_base": 0.0,
        "updates_per_batch": 1,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "max_importance": 2.0,
        "replay_routing": True,
        "max_mismatch_kl": 0.1,
        "max_fall": 0.5,
        "patience": 10,
        "eval_problems": 64,
        "grading_timeout_s": 5.0,
    },
    "evaluation": {"rows": 0, "max_new_tokens": 112, "grading_timeout_s": 5.0},
    "suites": {},
    "gate": {"min_gain": 0.05, "max_p_value": 0.05},
    "registry": {"model_name": "ernie-math-demo", "experiment": "ernie_pipeline"},
    "publish": {"repo": "", "private": True, "forms": ["peft"], "license": "apache-2.0", "tag": ""},
    "execution": {
        "profile": None,
        "micro_batch": None,
        "packing": None,
        "pack_tokens": None,
        "memory_limit_gib": None,
        "gradient_checkpointing": None,
        "generation_rows": None,
        "checkpoint_s": None,
        "generator": None,
    },
}


def test_the_demo_recipe_is_what_it_was() -> None:
    """A changed value rebuilds every user's demo, and its README figures: change this with intent."""
    assert load_recipe("demo").model_dump(mode="json") == DEMO


@pytest.mark.parametrize("preset", sorted(p.stem for p in PRESETS.glob("*.toml")))
def test_every_preset_is_a_recipe(preset: str) -> None:
    recipe = load_recipe(preset)
    assert parse_recipe(recipe.model_dump(mode="json"), where="test") == recipe


def test_the_recipe_reference_is_the_reference_run() -> None:
    recipe = load_recipe("reference")
    assert (recipe.split.rows, recipe.lora.rank, recipe.lora.alpha) == (8000, 16, 16)
    assert recipe.training.samples_per_step == 8  # its 4 x 2
    assert (recipe.training.max_steps, recipe.training.learning_rate) == (700, 2e-4)
    assert (recipe.training.optimizer, recipe.training.lr_scheduler) == ("adamw_8bit", "cosine")
    assert recipe.training.warmup_fraction == 0.05
    assert (recipe.training.eval_every, recipe.training.keep) == (100, "best")
    assert recipe.base_model.name.endswith("ERNIE-4.5-21B-A3B-PT")
    assert recipe.execution.said() == {}  # how it is computed is the machine's affair


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"lora": {"rnak": 8}}, "recipe here: unknown key lora.rnak; did you mean 'rank'?"),
        ({"trainig": {}}, "recipe here: unknown key trainig; did you mean 'training'?"),
        ({"gate": {"zzz": 1}}, "recipe here: unknown key gate.zzz; the keys there are min_gain, max_p_value"),
        ({"lora": {"rank": 0}}, "recipe here: lora.rank = 0: input should be greater than 0"),
        ({"quantization": {"bits": 8}}, "recipe here: quantization.bits = 8: input should be 4"),
        ({"lora": {"targets": ["q_proj", "qproj"]}}, "recipe here: lora.targets.1 = 'qproj': input should be 'q_proj'"),
        ({"lora": {"targets": []}}, "recipe here: lora.targets is empty: name at least one of q_proj"),
        ({"split": {"eval_fraction": 1}}, "recipe here: split.eval_fraction = 1: input should be less than 1"),
        ({"training": {"learning_rate": float("inf")}}, "recipe here: training.learning_rate = inf: input should be"),
        ({"training": {"learning_rate": float("nan")}}, "recipe here: training.learning_rate = nan: input should be"),
        ({"training": {"epochs": "many"}}, "recipe here: training.epochs = 'many': input should be a valid number"),
        ({"training": {"max_steps": 1.5}}, "recipe here: training.max_steps = 1.5: input should be a valid integer"),
        ({"training": {"max_steps": 9, "max_samples": 9}}, "recipe here: training.max_steps and training.max_samples"),
        ({"training": {"fp8": True}}, 'recipe here: training.fp8 = true is for training.backend = "grouped" and'),
        (
            {"execution": {"micro_batchs": 4}},
            "recipe here: unknown key execution.micro_batchs; did you mean 'micro_batch'?",
        ),
        ({"training": {"packing": True}}, "recipe here: unknown key training.packing; it belongs to [execution]"),
        ({"execution": {"profile": "12gb"}}, "recipe here: execution.profile = '12gb': input should be 'cpu', '24gb'"),
        ({"execution": {"micro_batch": 0}}, "recipe here: execution.micro_batch = 0: input should be greater than 0"),
        (
            {"registry": {"model_name": "ernie-4.5-mine"}},
            "recipe here: registry.model_name = 'ernie-4.5-mine' is none that",
        ),
        (
            {"registry": {"model_name": "me/mine"}},
            "recipe here: registry.model_name = 'me/mine' is none that MLflow takes",
        ),
        ({"registry": {"model_name": " "}}, "recipe here: registry.model_name = ' ' is none that MLflow takes"),
        (
            {"source": {"kind": "file", "path": "rows.csv", "question": "text", "answer": "text"}},
            "recipe here: source.question and source.answer are both 'text'; name a column of its own for each",
        ),
        ({"lora": 16}, "recipe here: lora = 16 is no table; write [lora] and its keys below it"),
        ({"split": {"rows": True}}, "recipe here: split.rows = True: input should be a valid integer"),
        ({"split": {"rows": "30"}}, "recipe here: split.rows = '30': input should be a valid integer"),
        ({"split": {"stratify": 1}}, "recipe here: split.stratify = 1: input should be a valid boolean"),
        ({"gate": {"min_gain": float("inf")}}, "recipe here: gate.min_gain = inf: input should be a finite number"),
        (
            {"gate": {"min_gain": -1}},
            "recipe here: gate.min_gain = -1 allows a loss, and the gate lets no adapter pass",
        ),
        ({"gate": {"min_gain": -0.01}}, "recipe here: gate.min_gain = -0.01 allows a loss"),
        ({"gate": {"min_gain": 1.5}}, "recipe here: gate.min_gain = 1.5: input should be less than or equal to 1"),
        ({"split": {"seed": date(2026, 1, 2)}}, "recipe here: split.seed = '2026-01-02': input should be a valid"),
        ({"source": {"kind": "file"}}, 'recipe here: source.path is missing: kind = "file" needs the path'),
        ({"source": {"kind": "hub"}}, 'recipe here: source.dataset is missing: kind = "hub" needs a data set id'),
        ({"lora": {"rank": 0}, "gatee": {}}, "recipe here: lora.rank = 0: input should be greater than 0; unknown key"),
    ],
)
def test_a_wrong_recipe_is_said_in_one_sentence(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse_recipe(table, where="recipe here")
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[lora\nrank = 8", b"[lora]\nrank = ", b"\xff\xfe[lora]"])
def test_broken_toml_names_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(PipelineError, match=r"recipe .*broken\.toml: not valid TOML \(.+\); correct it") as caught:
        load_recipe(str(file))
    assert "\n" not in str(caught.value)


def test_a_recipe_with_the_mark_of_windows_editors_is_read(tmp_path: Path) -> None:
    file = tmp_path / "marked.toml"
    file.write_bytes(b"\xef\xbb\xbf[lora]\nrank = 8\n")
    assert load_recipe(str(file)).lora.rank == 8


def test_a_folder_for_a_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=rf"^recipe '{tmp_path}' is a folder; name a TOML file in it$"):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize("name", ["nowhere.toml", "demo.tml"])
def test_a_recipe_that_is_not_there_names_the_presets(name: str) -> None:
    with pytest.raises(PipelineError, match=r"is neither a preset \(best, demo, reference\) nor a TOML file"):
        load_recipe(name)


@pytest.mark.parametrize(("name", "why"), [("/proc/self/mem", "Input/output error"), ("a" * 300, "File name too long")])
def test_a_recipe_that_cannot_be_read_is_one_sentence(name: str, why: str) -> None:
    with pytest.raises(PipelineError, match=rf"^recipe '{name}' cannot be read \({why}\); mend that, or name another"):
        load_recipe(name)


def test_a_misspelled_recipe_is_told_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("")
    for wrong, near in {"dmeo": "demo", "mien.toml": "mine.toml"}.items():
        with pytest.raises(PipelineError, match=f"did you mean '{near}'"):
            load_recipe(wrong)


def test_a_file_is_read_on_top_of_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text("[lora]\nrank = 8\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path / "own.toml"), "~/own.toml"):
        named = {"model_name": "ernie-math-demo"}  # by its rows
        assert load_recipe(name) == Recipe.model_validate({"lora": {"rank": 8}, "registry": named})


def test_a_source_that_looks_like_a_path_or_exists_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "rows").write_text("")
    for source in ("some/rows", "missing.jsonl", "rows.jsonl.gz", "rows.zst", "rows.parquet", "./rows", "/rows", "~/r"):
        replaced = load_recipe("reference", source).source
        assert (replaced.kind, replaced.path, replaced.dataset) == ("file", source, ""), source


def test_any_other_source_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    replaced = load_recipe("demo", "nvidia/Nemotron-RL-math-OpenMathReasoning").source
    assert (replaced.kind, replaced.dataset) == ("hub", "nvidia/Nemotron-RL-math-OpenMathReasoning")


def test_another_source_keeps_the_tolerance_and_nothing_else_of_the_recipes_own(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[source]\nkind = "hub"\ndataset = "a/b"\nrevision = "v1"\nsplit = "test"\nmax_bad_rows = 7\n')
    source = load_recipe(str(file), "rows.jsonl").source
    assert source.model_dump(exclude_defaults=True) == {"kind": "file", "path": "rows.jsonl", "max_bad_rows": 7}
    file.write_text("source = 3\n")
    assert load_recipe(str(file), "rows.jsonl").source.path == "rows.jsonl"


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe("demo")
    for section, key, value in ((recipe.lora, "rank", 8), (recipe, "lora", recipe.lora)):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, value)
    with pytest.raises(TypeError):
        recipe.lora.targets[0] = "up_proj"  # type: ignore[index]


@pytest.mark.parametrize("mark", "/:.%\"' -_+#ü")
def test_a_name_is_refused_that_mlflow_would_refuse_at_the_end(mark: str) -> None:
    from mlflow.utils.validation import _validate_logged_model_name

    def refused(check: Any) -> bool:
        try:
            check(f"a{mark}b")
        except (MlflowException, PipelineError):
            return True
        return False

    ours = refused(lambda name: parse_recipe({"registry": {"model_name": name}}, where="here"))
    assert ours == refused(_validate_logged_model_name)
