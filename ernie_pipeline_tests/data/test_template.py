from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.data.chat.template import chat_rows
from ernie_pipeline.data.normalize.answers import with_answer
from ernie_pipeline.data.read.row_schema import ROWS as RAW_ROWS
from ernie_pipeline.demo.tokenizer import CHAT_TEMPLATE
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.conftest import ROLE_AND_CONTENT
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


def test_a_template_that_rewrites_the_prompt_is_refused(make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(PipelineError, match=r"line 1: .* writes another prompt"):
        chat_rows(ROWS, make_tokenizer(REWRITES))


def test_a_template_that_refuses_the_messages_is_told_with_the_line(make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(PipelineError, match=r"line 1: .* refuses the messages \(roles must alternate\)"):
        chat_rows(ROWS, make_tokenizer(REFUSES))


def test_no_rows_give_no_chats(tokenizer: Any) -> None:
    assert chat_rows(ROWS.clear(), tokenizer).schema == chat_rows(ROWS, tokenizer).schema


ERNIE = (
    "{%- if not cls_token is defined -%}{%- set cls_token = '<|begin_of_sentence|>' -%}{%- endif -%}{{- cls_token -}}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{- 'User: ' + message['content'] + '\\n' -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- 'Assistant: ' + message['content'] + eos_token -}}"
    "{%- elif message['role'] == 'system' -%}{{- message['content'] + '\\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}"
)
DATED = "{{ strftime_now('%Y-%m-%d') }}\n" + ENDED
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}You are helpful.\n{% endif %}" + ENDED
DROPS_SYSTEM = ENDED.replace("messages %}", "messages if m['role'] != 'system' %}")
TWICE = ENDED.replace("{{ m['content'] }}", "{{ m['content'] ~ '|' ~ m['content'] }}")
TRIMS = ENDED.replace("m['content']", "m['content'] | trim")
UPPER = ENDED.replace("m['content']", "m['content'] | upper")
SPLITS = ENDED.replace("m['content']", "m['content'].split('</think>')[-1]")
ON_CONTENT = ENDED.replace(
    "{{ m['content'] }}",
    "{% if 'rare' in m['content'] %}!{% endif %}{% if m['content'] == 'rarer' %}?{% endif %}{{ m['content'] }}",
)
TEMPLATES = {
    "demo": CHAT_TEMPLATE,
    "role and content": ROLE_AND_CONTENT,
    "ended": ENDED,
    "ernie": ERNIE,
    "dated": DATED,
    "default": DEFAULT_SYSTEM,
    "drops system": DROPS_SYSTEM,
    "twice": TWICE,
    "trims": TRIMS,
    "upper": UPPER,
    "splits": SPLITS,
    "on content": ON_CONTENT,
}

SOME = [
    "What is 1 + 1?",
    " a ",
    "",
    "\n",
    "{{ m }}",
    "{% x %}",
    "</s>",
    "</think>b",
    "rare",
    "rarer",
    "é\u00a0",
    "b" * 120,
]


def conversations(count: int) -> pl.DataFrame:
    """Rows of three shapes; only one row, late, has the content that some template looks for."""
    rows = []
    for line in range(1, count + 1):
        text = SOME[line % 8] if line != count - 1 else "rare"
        messages = [{"role": "user", "content": f"{text}"}]
        if line % 3 == 1:
            messages.insert(0, {"role": "system", "content": SOME[(line * 5) % 8]})
        if line % 50 == 2:
            messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": SOME[-(line % 5)]}]
        rows.append((line, messages, text, "7" if line % 7 else r"\frac{1}{2}"))
    return with_answer(pl.DataFrame(rows, schema=RAW_ROWS, orient="row"))


def rendered(row: dict[str, Any], tokenizer: Any) -> tuple[str, str]:
    """The texts of one row, by the template itself."""
    whole = [*row["messages"], {"role": "assistant", "content": f"\\boxed{{{row['answer']}}}"}]
    prompt = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    return prompt, text[len(prompt) :] + ("" if text.rstrip().endswith("</s>") else "</s>")


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_row_is_as_the_template_renders_it(name: str, make_tokenizer: Callable[..., Any]) -> None:
    tokenizer, rows = make_tokenizer(TEMPLATES[name]), conversations(300)
    chats = chat_rows(rows, tokenizer)
    expected = [rendered(row, tokenizer) for row in rows.iter_rows(named=True)]
    assert list(chats.select("prompt_text", "completion_text").iter_rows()) == expected
    assert chats.rename({"prompt": "messages"}).select(rows.columns).equals(rows)


def test_an_answer_that_the_template_leaves_out(make_tokenizer: Callable[..., Any]) -> None:
    """Whether its text ends with the end token depends on the question then."""
    tokenizer = make_tokenizer("{% for m in messages if m['role'] != 'assistant' %}{{ m['content'] }}{% endfor %} ")
    rows = conversations(300)
    expected = [rendered(row, tokenizer) for row in rows.iter_rows(named=True)]
    assert list(chat_rows(rows, tokenizer).select("prompt_text", "completion_text").iter_rows()) == expected
    assert {"", "</s>"} == {completion for _, completion in expected}


def test_the_first_row_that_a_template_refuses_is_told(make_tokenizer: Callable[..., Any]) -> None:
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + ENDED
    rows = conversations(300).filter(pl.col("line") > 1)
    with pytest.raises(PipelineError, match=r"^line 4: .* refuses the messages \(no system\)"):
        chat_rows(rows, make_tokenizer(no_system))


def test_a_saved_tokenizer_loads_and_renders_alike(tokenizer: Any, tmp_path: Path) -> None:
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
