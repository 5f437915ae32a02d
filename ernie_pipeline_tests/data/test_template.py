from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.data.template import chat_rows, drop_long
from ernie_pipeline.engines.chat import load_tokenizer
from ernie_pipeline.errors import PipelineError
from ernie_pipeline_tests.data.samples import frame

ROWS = frame([("What is 1 + 1?", r"\(2\)"), ("Was ist ½ + ½?", "1")])
ENDED = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
REWRITES = "{{ messages|length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
REFUSES = "{{ raise_exception('roles must alternate') }}"


def test_prompt_and_completion_are_the_whole_conversation(tokenizer: Any) -> None:
    row = chat_rows(ROWS, tokenizer).row(0, named=True)
    assert row["prompt"] == [{"role": "user", "content": "What is 1 + 1?"}]
    assert row["completion"] == [{"role": "assistant", "content": r"\boxed{2}"}]
    assert row["prompt_text"] == "user: What is 1 + 1?\nassistant:"
    assert row["completion_text"] == " \\boxed{2}\n</s>"


def test_an_end_token_of_the_template_is_not_doubled(make_tokenizer: Callable[..., Any]) -> None:
    texts = chat_rows(ROWS, make_tokenizer(ENDED))["completion_text"].to_list()
    assert texts == ["\\boxed{2}</s>\n", "\\boxed{1}</s>\n"]


def test_tokens_count_both_texts_and_the_end_token_once(tokenizer: Any) -> None:
    chats = chat_rows(ROWS, tokenizer)
    bytes_and_end = [
        len((row["prompt_text"] + row["completion_text"].removesuffix("</s>")).encode()) + 1
        for row in chats.iter_rows(named=True)
    ]
    assert chats["tokens"].to_list() == bytes_and_end


def test_a_template_that_rewrites_the_prompt_is_refused(make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(PipelineError, match=r"line 1: .* writes another prompt"):
        chat_rows(ROWS, make_tokenizer(REWRITES))


def test_a_template_that_refuses_the_messages_is_told_with_the_line(make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(PipelineError, match=r"line 1: .* refuses the messages \(roles must alternate\)"):
        chat_rows(ROWS, make_tokenizer(REFUSES))


def test_rows_of_exactly_the_most_tokens_stay(tokenizer: Any) -> None:
    chats = chat_rows(ROWS, tokenizer)
    short, long = sorted(chats["tokens"])
    kept, dropped = drop_long(chats, short)
    assert kept["tokens"].to_list() == [short]
    assert dropped.select("filter", "reason").rows() == [
        ("max_tokens", f"prompt and completion have {long} tokens, more than {short}")
    ]


def test_no_rows_give_no_chats(tokenizer: Any) -> None:
    assert chat_rows(ROWS.clear(), tokenizer).schema == chat_rows(ROWS, tokenizer).schema


def test_a_saved_tokenizer_loads_and_counts_alike(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert chat_rows(ROWS, load_tokenizer(tmp_path)).equals(chat_rows(ROWS, tokenizer))


def test_a_tokenizer_without_a_chat_template_is_refused(make_tokenizer: Callable[..., Any], tmp_path: Path) -> None:
    make_tokenizer(None).save_pretrained(tmp_path)
    with pytest.raises(PipelineError, match=f"tokenizer {tmp_path} has no chat_template; use an instruction-tuned"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=f"tokenizer {tmp_path} cannot be loaded .*base_model.name"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_named(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PipelineError, match=f"tokenizer {tmp_path} cannot be loaded"):
        load_tokenizer(tmp_path)
