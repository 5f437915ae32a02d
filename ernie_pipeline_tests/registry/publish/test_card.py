"""The card of a published model, and the files beside it that people read."""

import dataclasses
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from ernie_pipeline.registry.export.readme import Report
from ernie_pipeline.registry.publish.card import Published, publication_card
from ernie_pipeline.registry.publish.citation import bibtex, notice
from ernie_pipeline_tests.registry.conftest import COMPARISON, LORA, QUANTIZATION, TARGETS
from ernie_pipeline_tests.registry.publish.hub import header_errors

MEASURED = {"rows": 500, "accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.92, "loss_completion": 0.5123}
BASE = {"name": "baidu/ERNIE-4.5-21B-A3B-PT", "revision": "c" * 40, "version": "commit:" + "c" * 40}
DATA = {
    "name": "nvidia/Nemotron-RL-math-OpenMathReasoning",
    "source": "data set nvidia/...",
    "version": "ce37",
    "license": "cc-by-4.0",
    "revision": "d" * 40,
    "on": "solutions",
    "train_rows": 100_000,
    "eval_rows": 500,
}
FACTS: dict[str, Any] = {
    "base": BASE,
    "quantization": QUANTIZATION,
    "lora": LORA,
    "data": DATA,
    "training": {"steps": 100},
    "evaluation": {"base": MEASURED | {"accuracy": 0.85}, "adapter": MEASURED},
    "comparison": COMPARISON,
    "targets": TARGETS,
}
ABOUT = Published(
    repo="me/ernie-math",
    license="apache-2.0",
    model="models:/ernie-math/3",
    instruction="Box it.\n",
    reports={
        "peft": Report(True, ["Loaded by PEFT."], {}),
        "merged": Report(True, ["Loaded by transformers."], {}),
        "gguf": Report(True, ["Read back."], {}),
    },
    rows={"dropped": 2000, "train": 100_000, "evaluation": 500},
    dropped={"benchmark_overlap": 12, "evaluation_overlap": 3, "proof": 0, "exact_duplicate": 1985},
    benchmarks=["openai/gsm8k/main"],
    decontamination={"enabled": True, "own_evaluation": True},
    versions={"nemotron_source": "commit:" + "d" * 40, "base_model": BASE["version"], "qlora_adapter": "beef"},
    reasons=["the gain is enough."],
    citation="@misc{x}\n",
    max_new_tokens=512,
    gguf="model-bf16.gguf",
    signed=True,
    by_kind={"base": {"integer": {"rows": 9, "accuracy": 0.5}}, "adapter": {"integer": {"rows": 9, "accuracy": 1.0}}},
)


def header_of(card: str) -> dict[str, Any]:
    assert header_errors(card) == []
    values: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return values


def test_the_header_is_what_the_hub_asks_for() -> None:
    header = header_of(publication_card(FACTS, ABOUT))
    assert (header["base_model"], header["base_model_relation"]) == (BASE["name"], "adapter")
    assert (header["library_name"], header["license"], header["language"]) == ("peft", "apache-2.0", ["en"])
    assert header["datasets"] == [DATA["name"]]
    [model] = header["model-index"]
    [result] = model["results"]
    assert result["dataset"]["revision"] == DATA["revision"]
    [metric] = result["metrics"]
    assert (model["name"], metric["type"], metric["value"]) == ("ernie-math", "accuracy", 0.9)
    assert metric["name"] == "Accuracy (95 % interval 0.8700 to 0.9200, 500 rows)"


def test_the_header_is_read_back_by_the_hubs_own_library() -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(publication_card(FACTS, ABOUT)).data
    assert [result.metric_value for result in data.eval_results or ()] == [0.9]
    assert data.to_dict()["base_model_relation"] == "adapter"


@pytest.mark.parametrize(("form", "library"), [("merged", "transformers"), ("gguf", "gguf"), ("unsloth", "peft")])
def test_the_first_form_is_what_the_repository_is(form: str, library: str) -> None:
    card = publication_card(FACTS, dataclasses.replace(ABOUT, reports={form: Report(True, ["Checked."], {})}))
    assert header_of(card)["library_name"] == library
    assert "| `.` |" in card
    assert f"/{form}" not in card.split("## Results")[0]


def test_it_says_what_one_asks_about_a_model() -> None:
    card = publication_card(FACTS, ABOUT)
    assert "| adapter | 500 | 0.5123 | 90.0 % (87.0 to 92.0 %) |" in card
    assert "exact McNemar test on the same rows: p = 0.001." in card
    assert "Greedy answers of at most 512 tokens" in card
    assert "| integer | 9 | 50.0 % | 100.0 % |" in card
    assert "- rows of the source: 102,500: 100,000 train, 2,000 dropped, 500 evaluation" in card
    assert "15 rows dropped for asking what is asked in `openai/gsm8k/main`, the rows held out" in card
    assert "| exact duplicate | 1,985 |" in card
    assert "| proof |" not in card
    assert f"- `nemotron_source`: `commit:{'d' * 40}`" in card
    assert "![training curve](training_curve.png)" in card
    assert "`model.sig` is the signature" in card
    assert "- the gain is enough." in card
    assert "has an adapter" not in card
    assert "models:/ernie-math/3" in card


def test_the_lines_that_load_it_name_the_repository_and_the_commit_of_the_base() -> None:
    card = publication_card(FACTS, ABOUT)
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "card", "exec")
    assert f"from_pretrained('{BASE['name']}', revision='{'c' * 40}'" in blocks[0]
    assert "PeftModel.from_pretrained(base, 'me/ernie-math')" in blocks[0]
    assert 'snapshot_download("me/ernie-math") + "/merged"' in blocks[1]
    assert '"$(hf download me/ernie-math gguf/model-bf16.gguf)"' in card


def test_a_base_model_in_a_folder_keeps_its_place_to_itself() -> None:
    base = {"name": "/home/somebody/base", "revision": None, "version": "sha256:ab"}
    card = publication_card({**FACTS, "base": base}, ABOUT)
    assert "/home/somebody" not in card
    assert "base_model" not in header_of(card)
    assert (
        "put the path of a folder of yours, whose content has the version `sha256:ab`, in the place of `'base'`" in card
    )


def test_whose_work_it_stands_on_is_cited_and_named() -> None:
    entries = bibtex(BASE, DATA, {})
    assert re.findall(r"@\w+\{([\w.]+),", entries) == ["ernie2025technicalreport", "moshkov2025aimo2", "ernie_pipeline"]
    other = bibtex({"name": "a/b"}, {"name": "c/d"}, {"base_model": "commit:1", "nemotron_source": "commit:2"})
    assert "https://huggingface.co/a/b" in other
    likely = bibtex({"name": "demography/b"}, {"name": "demo_rows.jsonl"}, {})
    assert "https://huggingface.co/demography/b" in likely
    assert "reasoninggym" not in likely, "only the demo itself is made with it"
    assert bibtex({"name": "demo"}, {"name": "demo"}, {}).count("reasoninggym") == 1
    assert "note = {commit:2},\n  howpublished = {\\url{https://huggingface.co/datasets/c/d}}" in other
    text = notice("apache-2.0", BASE, DATA)
    assert "its text is in LICENSE" in text
    assert "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)" in text
    assert "its text: https://opensource.org/license/mit" in notice("mit", BASE, DATA)
