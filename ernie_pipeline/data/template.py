"""Rows as the model sees them: the chat template's text of the prompt and of the completion, and its length."""

from typing import TYPE_CHECKING, Any

import polars as pl

from ernie_pipeline.data.filters import drop_rows
from ernie_pipeline.data.rows import MESSAGES
from ernie_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_BATCH = 1000


def chat_rows(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> pl.DataFrame:
    r"""`rows` (with `answer`) as chats. `messages` becomes `prompt`; new columns:

    `completion`, one assistant message `\boxed{answer}`; `prompt_text`, the template's text up to where the model is
    to write; `completion_text`, the rest, which ends with the end token; `tokens`, the length of both together.
    Raises `PipelineError` when the template fails on a row, or rewrites the prompt once a completion follows.
    """
    prompts = rows["messages"].to_list()
    completions = [[{"role": "assistant", "content": f"\\boxed{{{answer}}}"}] for answer in rows["answer"]]
    texts = [
        _texts(prompt, completion, tokenizer, line)
        for prompt, completion, line in zip(prompts, completions, rows["line"], strict=True)
    ]
    tokens = _token_counts([prompt + completion for prompt, completion in texts], tokenizer)
    return rows.rename({"messages": "prompt"}).with_columns(
        pl.Series("completion", completions, MESSAGES),
        pl.Series("prompt_text", [prompt for prompt, _ in texts], pl.String),
        pl.Series("completion_text", [completion for _, completion in texts], pl.String),
        pl.Series("tokens", tokens, pl.UInt32),
    )


def drop_long(rows: pl.DataFrame, max_tokens: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped): rows of at most `max_tokens` tokens, and the longer ones as the filter `max_tokens`."""
    too_long = pl.col("tokens") > max_tokens
    reason = pl.when(too_long).then(
        pl.format(f"prompt and completion have {{}} tokens, more than {max_tokens}", "tokens")
    )
    kept, dropped = pl.collect_all(drop_rows(rows.lazy(), "max_tokens", reason))
    return kept, dropped


def _texts(prompt: list[Any], completion: list[Any], tokenizer: Any, line: int) -> tuple[str, str]:
    from jinja2 import TemplateError

    try:
        prompt_text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        text = tokenizer.apply_chat_template(prompt + completion, tokenize=False)
    except (TemplateError, TypeError, ValueError) as error:
        raise PipelineError(
            f"line {line}: the chat template of {tokenizer.name_or_path} refuses the messages ({error}); "
            "use a base model whose template takes these roles"
        ) from error
    if not text.startswith(prompt_text):
        raise PipelineError(
            f"line {line}: the chat template of {tokenizer.name_or_path} writes another prompt before an answer than "
            "for generation, so training and evaluation would differ; use a base model whose template does not"
        )
    ends = text.rstrip().endswith(tokenizer.eos_token)
    return prompt_text, text[len(prompt_text) :] + ("" if ends else tokenizer.eos_token)


def _token_counts(texts: list[str], tokenizer: Any) -> list[int]:
    counts: list[int] = []
    for start in range(0, len(texts), TOKENIZER_BATCH):
        batch = texts[start : start + TOKENIZER_BATCH]
        encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False)
        counts += map(len, encoded["input_ids"])
    return counts
