import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from ernie_pipeline.registry.model_card import description, is_hub_id, model_card
from ernie_pipeline.registry.trained_on import loss_note
from ernie_pipeline_tests.registry.conftest import COMPARISON, LORA, QUANTIZATION, TARGETS

MEASURED = {"rows": 500, "accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.92, "loss_completion": 0.5123}


BASE = {**MEASURED, "accuracy": 0.85, "accuracy_low": 0.82, "accuracy_high": 0.88, "loss_completion": 0.6}


def hub_card() -> str:
    return model_card(
        name="ernie-math",
        license="apache-2.0",
        base={"name": "baidu/ERNIE", "revision": "c" * 40, "version": "commit:" + "c" * 40},
        quantization=QUANTIZATION,
        lora=LORA,
        data={
            "name": "nvidia/rows",
            "source": "nvidia/rows",
            "version": "sha256:d",
            "license": "CC BY 4.0",
            "on": "solutions",
            "train_rows": 100_000,
            "eval_rows": 500,
        },
        training={"steps": 100},
        evaluation={"base": BASE, "adapter": MEASURED},
        comparison=COMPARISON,
        targets=TARGETS,
        question="What's 'x' | if $2x = 4$?",
    )


def test_the_header_is_yaml_that_the_hub_reads() -> None:
    header = yaml.safe_load(hub_card().split("---")[1])
    assert header["base_model"] == "baidu/ERNIE"
    assert header["datasets"] == ["nvidia/rows"]
    assert (header["license"], header["library_name"]) == ("apache-2.0", "peft")


def test_a_base_or_source_that_is_a_path_keeps_its_place_to_itself(card: str) -> None:
    header = yaml.safe_load(card.split("---")[1])
    assert "base_model" not in header
    assert "datasets" not in header
    assert "/somewhere/private" not in card
    assert "- source: rows.jsonl" in card


def test_the_figures_stand_in_tables() -> None:
    card = hub_card()
    assert "| base | 500 | 0.6000 | 85.0 % (82.0 to 88.0 %) |" in card
    assert "| adapter | 500 | 0.5123 | 90.0 % (87.0 to 92.0 %) |" in card
    assert "+5.0 points (95 % interval +2.0 to +8.0); exact McNemar test on the same rows: p = 0.001." in card
    assert "| attention | q_proj | 6 | 393,216 | 12,288 |" in card
    assert "| all |  | 6 | 393,216 | 12,288 |" in card


def test_no_sentence_is_broken_which_mlflow_s_pages_would_show() -> None:
    text = re.sub(r"```.*?```", "", description(hub_card(), 5000), flags=re.DOTALL)
    assert [part for part in text.split("\n\n") if "\n" in part.strip() and part.lstrip()[0] not in "-|"] == []


def test_a_description_is_the_card_without_header_cut_between_sections() -> None:
    card = hub_card()
    assert card.endswith(description(card, 5000))
    short = description(card, 1000)
    assert short.startswith("# ernie-math\n")
    assert len(short) <= 1000
    assert short.split("\n\n")[-1].startswith("The rest is in model_card.md")
    assert card.split(short.rpartition("\n\n")[0])[1].startswith("\n\n## ")


def test_the_python_in_it_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", hub_card(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "card", "exec")


def test_it_says_what_was_trained_on() -> None:
    assert "on the base model's own solutions of these problems that were graded right and measured on" in hub_card()
    assert "- solutions: 100,000 to train on, 500 held out" in hub_card()
    assert "a final answer in `\\boxed{}`." in hub_card()


@pytest.mark.parametrize(
    ("on", "loss", "accuracy", "other_on", "said"),
    [
        ("solutions", 0.7, 0.9, "", True),
        ("rewards", 0.7, 0.9, "answers", True),
        ("answers", 0.7, 0.9, "", False),
        ("solutions", 0.7, 0.9, "rewards", False),
        ("solutions", 0.5, 0.9, "", False),
        ("solutions", 0.7, 0.8, "", False),
    ],
)
def test_a_loss_that_rises_with_the_accuracy_is_explained_where_the_model_learnt_other_words(
    on: str, loss: float, accuracy: float, other_on: str, said: bool
) -> None:
    note = loss_note("the adapter", on, {"loss_completion": loss, "accuracy": accuracy}, BASE, other_on)
    assert note.startswith("The loss of the adapter is higher although more of its answers are right") is said
    assert bool(note) is said


def test_a_relative_path_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/base").mkdir(parents=True)
    paths = (
        "data/rows.jsonl",
        "data/rows.CSV.gz",
        "data/rows.parquet",
        "models/base",
        "./a",
        "/a",
        "~/a",
        "a/b/c",
        "a",
    )
    assert [name for name in paths if is_hub_id(name)] == []
    assert is_hub_id("openai/gsm8k")
    assert is_hub_id("baidu/ERNIE-4.5-21B-A3B-PT")
