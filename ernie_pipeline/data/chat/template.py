"""Rows as the model sees them: the chat template's text of the prompt and of the completion."""

from typing import TYPE_CHECKING, Any

import polars as pl

from ernie_pipeline.data.read.row_schema import MESSAGES
from ernie_pipeline.models.checkpoint.tokenizer import end_turn
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_AT_ONCE = 4096
"""As Python's lists and dicts, conversations take several times the memory that they take in a table."""

TEXTS = pl.Schema({"prompt_text": pl.String, "completion_text": pl.String})

Conversation = list[dict[str, str]]


def chat_rows(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> pl.DataFrame:
    r"""`rows` (with `answer`) as chats. `messages` becomes `prompt`; new columns:

    `completion`, one assistant message `\boxed{answer}`; `prompt_text`, the template's text up to where the model is
    to write; `completion_text`, the rest, which ends with the end token.
    Raises `PipelineError` when the template fails on a row, or rewrites the prompt once a completion follows.
    """
    assistant = pl.struct(role=pl.lit("assistant"), content=pl.concat_str(pl.lit("\\boxed{"), "answer", pl.lit("}")))
    chats = rows.rename({"messages": "prompt"}).with_columns(completion=pl.concat_list(assistant).cast(MESSAGES))
    rendered = [_rendered(some, tokenizer) for some in chats.iter_slices(ROWS_AT_ONCE)]
    return chats.hstack(pl.concat([pl.DataFrame(schema=TEXTS), *rendered], rechunk=True))


def _rendered(chats: pl.DataFrame, tokenizer: Any) -> pl.DataFrame:
    """`TEXTS` of each row: one call for the prompts and one for the whole conversations, unless one of them fails."""
    from jinja2 import TemplateError

    prompts: list[Conversation] = chats["prompt"].to_list()
    answers = chats["completion"].list.first().struct.unnest().to_dicts()
    wholes = [[*prompt, answer] for prompt, answer in zip(prompts, answers, strict=True)]
    try:
        prompt_texts, texts = _templated(prompts, wholes, tokenizer)
    except (TemplateError, TypeError, ValueError) as error:
        if chats.height > 1:  # row by row: the error names the first line at fault
            return pl.concat([_rendered(row, tokenizer) for row in chats.iter_slices(1)])
        raise PipelineError(
            f"line {chats['line'][0]}: the chat template of {tokenizer.name_or_path} refuses the messages ({error}); "
            "use a base model whose template takes these roles"
        ) from error
    completions = [
        _completion(prompt_text, text, tokenizer, line)
        for prompt_text, text, line in zip(prompt_texts, texts, chats["line"], strict=True)
    ]
    return pl.DataFrame([prompt_texts, completions], schema=TEXTS)


def _templated(prompts: list[Conversation], wholes: list[Conversation], tokenizer: Any) -> tuple[list[str], list[str]]:
    """The template's texts of the prompts, up to where the model is to write, and of the whole conversations."""
    return (
        tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True),
        tokenizer.apply_chat_template(wholes, tokenize=False),
    )


def _completion(prompt_text: str, text: str, tokenizer: Any, line: int) -> str:
    """What follows the prompt in `text`, ended by the end token, see `end_turn`."""
    if not text.startswith(prompt_text):
        raise PipelineError(
            f"line {line}: the chat template of {tokenizer.name_or_path} writes another prompt before an answer than "
            "for generation, so training and evaluation would differ; use a base model whose template does not"
        )
    return end_turn(tokenizer, text)[len(prompt_text) :]
