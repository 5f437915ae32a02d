"""The hub's form of ERNIE-4.5 by each backend that a CPU has, see `hub_format.py`. By Dagster: in `scenarios/`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from ernie_pipeline.data.chat.template import chat_rows
from ernie_pipeline.models.audit import totals
from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts, load_tokenizer, token_ids
from ernie_pipeline.models.documents import Document, document
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import PROFILES
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.grouped.demo import grouped_demo
from ernie_pipeline_tests.models.hub_format import EXPERTS, LAYERS, write_hub_checkpoint

LORA = Lora(rank=4, alpha=8)
FORMS: dict[str, dict[str, bool]] = {
    "as on the hub": {},
    "one file of torch's": {"one_file": True},
    "an output layer of its own": {"untied": True},
    "one that config.json does not know of": {"untied": True, "says_tied": True},
}
CASES = [(backend, form) for backend in ("peft", "grouped") for form in FORMS]
CASES.remove(("grouped", "one file of torch's"))  # it reads safetensors alone
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub_checkpoint(tmp_path_factory.mktemp("hub"))


def load(backend: str, checkpoint: Path, folder: Path, adapter: Path | None = None) -> LoadedModel:
    base = BaseCheckpoint(name="hub", checkpoint=str(checkpoint), version="the hub's")
    quantization = Quantization(compute_dtype="float32", double=False)
    spec = ModelSpec(backend="peft", base=base, quantization=quantization, lora=LORA, adapter=adapter)
    if backend == "peft":
        return PeftBackend().load(spec, "cpu")
    folder.mkdir()
    model = grouped_demo(folder, spec)
    if adapter:
        model.read_adapter(adapter)
    model.audit(training=False)
    return model


def conversations(checkpoint: Path) -> tuple[list[str], list[str]]:
    """Prompts and completions as the data stage writes them."""
    rows = pl.DataFrame({"messages": [QUESTION] * 4, "answer": ["42", "7", "1/2", "-3"], "line": [1, 2, 3, 4]})
    tokenizer: Any = load_tokenizer(str(checkpoint))
    chats = chat_rows(rows, tokenizer)
    return chats["prompt_text"].to_list(), chats["completion_text"].to_list()


def documents(checkpoint: Path) -> list[Document]:
    tokenizer, (prompts, completions) = load_tokenizer(str(checkpoint)), conversations(checkpoint)
    starts, ends = token_ids(tokenizer, prompts), token_ids(tokenizer, completions)
    return [document(start + end, len(start)) for start, end in zip(starts, ends, strict=True)]


def train(model: LoadedModel, rows: Sequence[Document], steps: int = 4) -> list[float]:
    training = model.training(PROFILES["cpu"], [[len(row.ids) for row in rows]] * steps)
    optimizer, losses = torch.optim.AdamW(training.parameters, lr=5e-3), list[float]()
    for _ in range(steps):
        loss = training.forward_backward(rows, sum(row.counted for row in rows))
        assert loss is not None
        losses.append(loss.item())
        optimizer.step()
    return losses


@pytest.mark.parametrize(("backend", "form"), CASES)
def test_the_hub_s_form_is_loaded_audited_trained_saved_and_asked(backend: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    checkpoint = write_hub_checkpoint(tmp_path / "hub", **FORMS[form])
    model, rows = load(backend, checkpoint, tmp_path / "first"), documents(checkpoint)
    model.add_adapter(LORA, seed=0)
    table = model.audit(training=True)
    assert totals(table)["modules"] == LAYERS * 4 + 3 + (LAYERS - 1) * 3 * (1 + EXPERTS)
    losses = train(model, rows)
    assert losses[-1] < losses[0]

    model.save_adapter(tmp_path / "adapter")
    again = load(backend, checkpoint, tmp_path / "second", tmp_path / "adapter")
    ids = rows[0].ids
    torch.testing.assert_close(again.logits(list(ids)), model.logits(list(ids)), atol=1e-4, rtol=1e-4)

    prompts = token_ids(model.tokenizer, conversations(checkpoint)[0])
    made = again.generate(prompts[:1], Sampling(8), rows=1)
    assert 1 <= len(made.tokens[0]) <= 8
    assert "<|" not in answer_texts(again.tokenizer, made.tokens)[0]


def test_both_backends_hold_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    rows = documents(checkpoint)
    models = [load(backend, checkpoint, tmp_path / backend) for backend in ("peft", "grouped")]
    first, second = (model.logits(list(rows[0].ids)) for model in models)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


def test_the_router_s_biases_decide_the_logits(checkpoint: Path, tmp_path: Path) -> None:
    model, ids = load("peft", checkpoint, tmp_path), list(documents(checkpoint)[0].ids)
    with_biases = model.logits(ids)
    for name, parameter in model.module.named_parameters():
        if name.endswith("e_score_correction_bias"):
            assert parameter.abs().max() > 0
            parameter.data.zero_()
    assert (with_biases - model.logits(ids)).abs().max() > 1e-3


@pytest.mark.parametrize("backend", ["peft", "grouped"])
def test_a_checkpoint_without_the_router_s_biases_is_refused(backend: str, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    checkpoint = write_hub_checkpoint(tmp_path / "hub", biases=False)
    with pytest.raises(PipelineError, match=r"2 are not there, among them .*moe_statics\.e_score_correction_bias\)$"):
        load(backend, checkpoint, tmp_path / "first")


@pytest.mark.parametrize("backend", ["peft", "grouped"])
def test_weights_for_which_the_configuration_has_no_place_are_refused(backend: str, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    checkpoint = write_hub_checkpoint(tmp_path / "hub")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS - 1}))
    with pytest.raises(PipelineError, match=r"config\.json has no place for .* them, among them model\.layers\.2\."):
        load(backend, checkpoint, tmp_path / "first")


def test_backend_grouped_refuses_a_file_of_torch_s_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    checkpoint = write_hub_checkpoint(tmp_path / "hub", one_file=True)
    with pytest.raises(PipelineError, match="save it again as safetensors") as caught:
        load("grouped", checkpoint, tmp_path / "first")
    assert "\n" not in str(caught.value)


def test_a_turn_ends_as_ernie_s_own_tools_end_it(checkpoint: Path) -> None:
    prompts, completions = conversations(checkpoint)
    assert prompts[0] == "<|begin_of_sentence|>User: What is 12 + 30?\nAssistant: "
    assert completions[0] == "\\boxed{42}</s>"
    tokenizer = load_tokenizer(str(checkpoint))
    assert [ids[-1] for ids in token_ids(tokenizer, completions)] == [2] * 4
    assert answer_texts(tokenizer, token_ids(tokenizer, completions)) == [
        r"\boxed{42}",
        r"\boxed{7}",
        r"\boxed{1/2}",
        r"\boxed{-3}",
    ]
