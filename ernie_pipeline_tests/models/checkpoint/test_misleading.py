"""Tokenizers and generation_configs that disagree with the model, or mislead: told when loaded, or made right."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts, end_tokens, end_turn, load_tokenizer, token_ids
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Quantization
from ernie_pipeline.utils.errors import PipelineError

ROWS = 768
"""Of the demo's embeddings."""
SUM = "<s>12 + 35 ="


def change(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))


def special(token: int, content: str, *, is_special: bool = True) -> dict[str, Any]:
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": content, "special": is_special, **options}


def load(checkpoint: Path) -> LoadedModel:
    base = BaseCheckpoint(name=str(checkpoint), checkpoint=str(checkpoint))
    quantization = Quantization(compute_dtype="float32", double=False)
    return PeftBackend().load(ModelSpec(backend="peft", base=base, quantization=quantization), "cpu")


def answer(model: LoadedModel) -> tuple[list[int], str]:
    made = model.generate(token_ids(model.tokenizer, [SUM]), Sampling(24), rows=1)
    return made.tokens[0], answer_texts(model.tokenizer, made.tokens)[0]


def many_more_tokens(checkpoint: Path, last: str) -> None:
    """Give the tokenizer tokens up to the first for which the demo has no embedding, which is `last`."""

    def edit(tokenizer: dict[str, Any]) -> None:
        number = 1 + max([*tokenizer["model"]["vocab"].values(), *(each["id"] for each in tokenizer["added_tokens"])])
        tokenizer["added_tokens"] += [special(i, f"<extra_{i}>") for i in range(number, ROWS)]
        tokenizer["added_tokens"].append(special(ROWS, last))

    change(checkpoint / "tokenizer.json", edit)


@pytest.mark.parametrize("is_special", [True, False])
def test_digits_that_are_called_special_stay_in_the_answer(checkpoint: Path, is_special: bool) -> None:
    def edit(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        tokenizer["added_tokens"] += [special(vocabulary[d], d, is_special=is_special) for d in "0123456789"]

    change(checkpoint / "tokenizer.json", edit)
    tokens, text = answer(load(checkpoint))
    assert tokens[-1] == 2
    assert text.strip() == "47"


def test_the_usual_marks_are_dropped() -> None:
    tokenizer = load_tokenizer(str(BASE))
    ids = token_ids(tokenizer, ["<s>12<pad>3</s>"])
    assert answer_texts(tokenizer, ids) == ["123"]
    assert answer_texts(tokenizer, []) == []


@pytest.mark.parametrize(
    ("mark", "shown"),
    [
        ("<|im_end|>", ""),
        ("[INST]", ""),
        (">>TITLE<<", ""),
        ("<mask:4>", ""),
        ("+", "+"),
        ("boxed", "boxed"),
        ("7", "7"),
    ],
)
def test_only_special_tokens_that_mark_are_dropped(checkpoint: Path, mark: str, shown: str) -> None:
    change(checkpoint / "tokenizer.json", lambda values: values["added_tokens"].append(special(760, mark)))
    tokenizer: Any = load_tokenizer(str(checkpoint))
    (ids,) = token_ids(tokenizer, ["12</s>"])
    number = tokenizer.convert_tokens_to_ids(mark)
    assert tokenizer.added_tokens_decoder[number].special
    assert answer_texts(tokenizer, [[number, *ids]]) == [f"{shown}12"]


def test_generation_ends_at_the_tokens_of_both_files_and_each_once() -> None:
    tokenizer: Any = SimpleNamespace(eos_token_id=2)
    for configured, expected in ((None, [2]), (2, [2]), (700, [700, 2]), ([2, 0], [2, 0]), ([7, 9], [7, 9, 2])):
        assert end_tokens(tokenizer, SimpleNamespace(eos_token_id=configured)) == expected


@pytest.mark.parametrize("configured", [700, None])
def test_an_answer_ends_at_the_token_trained_on_whatever_generation_config_says(
    checkpoint: Path, configured: int | None
) -> None:
    change(checkpoint / "config.json", lambda values: values.update(eos_token_id=configured))
    change(checkpoint / "generation_config.json", lambda values: values.update(eos_token_id=configured))
    if configured is None:
        (checkpoint / "generation_config.json").unlink()
    tokens, text = answer(load(checkpoint))
    assert tokens[-1] == 2
    assert text.strip() == "47"


def test_a_padding_that_is_an_end_token_changes_nothing(checkpoint: Path) -> None:
    change(checkpoint / "tokenizer_config.json", lambda values: values.update(pad_token="</s>"))
    change(checkpoint / "generation_config.json", lambda values: values.update(eos_token_id=[2, 0], pad_token_id=2))
    assert answer(load(checkpoint))[1].strip() == "47"


def refused(checkpoint: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        load_tokenizer(str(checkpoint))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"num_hidden_layers": 3},
            "cannot be loaded (config.json has no place for 39 of them, among them model.layers.3.",
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantized already (gptq); set base_model"),
        ({"moe_num_experts": "eight"}, "no readable config.json (TypeError: Field 'moe_num_experts' with value 'eig"),
        ({"num_attention_heads": 0}, "can be made as its config.json says (integer division or modulo by zero); set"),
    ],
)
def test_a_configuration_that_is_not_the_weights_is_refused(
    checkpoint: Path, changes: dict[str, Any], sentence: str
) -> None:
    change(checkpoint / "config.json", lambda values: values.update(changes))
    with pytest.raises(PipelineError) as caught:
        load(checkpoint)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_no_table_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("[]")
    with pytest.raises(PipelineError, match=r"no readable config\.json"):
        load(checkpoint)


def test_a_template_that_writes_a_token_without_an_embedding_is_refused(checkpoint: Path) -> None:
    many_more_tokens(checkpoint, "<|end|>")
    template = checkpoint / "chat_template.jinja"
    template.write_text(template.read_text().replace("'</s>'", "'<|end|></s>'"))
    assert "its chat template writes '<|end|>', token 768, and the model has only 768 (0 to 767)" in refused(checkpoint)


def test_a_padding_without_an_embedding_is_refused(checkpoint: Path) -> None:
    many_more_tokens(checkpoint, "[PAD]")
    change(checkpoint / "tokenizer_config.json", lambda values: values.update(pad_token="[PAD]"))
    assert "its pad_token '[PAD]' is token 768, and the model has only 768" in refused(checkpoint)


def test_a_token_without_an_embedding_that_no_text_has_is_allowed(checkpoint: Path) -> None:
    many_more_tokens(checkpoint, "<image>")
    assert answer(load(checkpoint))[1].strip() == "47"


def test_a_tokenizer_model_alone_asks_for_sentencepiece(
    without: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = without("tokenizer.json")
    (folder / "tokenizer.model").write_bytes(b"no SentencePiece model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}')
    monkeypatch.setattr("ernie_pipeline.models.checkpoint.tokenizer.find_spec", lambda name: None)
    assert refused(folder).endswith("it is not installed here: pip install sentencepiece")
    monkeypatch.setattr("ernie_pipeline.models.checkpoint.tokenizer.find_spec", lambda name: object())
    assert "cannot be loaded" in refused(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Assistant: 5<|sep|>", "Assistant: 5</s>"),
        ("Assistant: 5<|sep|>\n", "Assistant: 5</s>"),
        ("User: 1<|sep|>\nAssistant: 5", "User: 1<|sep|>\nAssistant: 5</s>"),
        ("Assistant: 5</s>\n", "Assistant: 5</s>\n"),
        ("Assistant: 5<|sep|></s>", "Assistant: 5<|sep|></s>"),
        ("Assistant: 5<|end|>\n", "Assistant: 5<|end|>\n</s>"),
    ],
)
def test_a_separator_behind_the_last_answer_gives_way_to_the_end_token(text: str, expected: str) -> None:
    tokenizer: Any = SimpleNamespace(eos_token="</s>", sep_token="<|sep|>")
    assert end_turn(tokenizer, text) == expected


def test_without_a_separator_the_end_token_is_added() -> None:
    tokenizer: Any = SimpleNamespace(eos_token="</s>", sep_token=None)
    assert end_turn(tokenizer, "5<|sep|>") == "5<|sep|></s>"
