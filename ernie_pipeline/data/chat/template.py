"""Rows as the model sees them: the chat template's text of the prompt and of the completion."""

from typing import TYPE_CHECKING, Any

import polars as pl

from ernie_pipeline.data.chat.render import Messages, Pieces, agrees, learn
from ernie_pipeline.data.read.row_schema import MESSAGES
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDS = ("\\boxed{", "}")
"""What every completion begins and ends with."""

SAMPLED = 8
FEW = 4 * SAMPLED
"""Fewer conversations of a shape than this are rendered each by itself: learning the shape takes as long."""


def chat_rows(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> pl.DataFrame:
    r"""`rows` (with `answer`) as chats. `messages` becomes `prompt`; new columns:

    `completion`, one assistant message `\boxed{answer}`; `prompt_text`, the template's text up to where the model is
    to write; `completion_text`, the rest, which ends with the end token.
    Raises `PipelineError` when the template fails on a row, or rewrites the prompt once a completion follows.
    """
    assistant = pl.struct(role=pl.lit("assistant"), content=pl.concat_str(pl.lit(ENDS[0]), "answer", pl.lit(ENDS[1])))
    chats = rows.with_columns(completion=pl.concat_list(assistant).cast(MESSAGES))
    shapes = chats.select(pl.col("messages").list.eval(pl.element().struct.field("role")).alias("roles"))
    shapes = shapes.with_row_index("position").group_by("roles", maintain_order=True).agg("position")
    texts, unlearned = [], []
    for roles, positions in shapes.iter_rows():
        some = chats if len(positions) == chats.height else chats[positions]
        pieces = _learn(some, roles, tokenizer) if len(positions) >= FEW else None
        if pieces is None:
            unlearned += positions
        else:
            columns = [
                _joined(part).alias(name) for part, name in zip(pieces, ("prompt_text", "completion_text"), strict=True)
            ]
            texts.append(some.select(pl.Series("position", positions, pl.UInt32), *columns))
    texts.append(_rendered(chats, sorted(unlearned), tokenizer))
    ordered = pl.concat(texts).sort("position").drop("position")
    return chats.rename({"messages": "prompt"}).hstack(ordered)


def _learn(chats: pl.DataFrame, roles: list[str], tokenizer: Any) -> tuple[Pieces, Pieces] | None:
    """The pieces of prompt text and completion text, or None if these conversations have to be rendered."""

    def prompt_of(messages: Messages) -> str:
        return _template(tokenizer, messages, add_generation_prompt=True)

    def whole_of(messages: Messages) -> str:
        return _template(tokenizer, messages)

    all_roles = [*roles, "assistant"]
    prompt, whole = learn(prompt_of, roles), learn(whole_of, all_roles, ENDS)
    if prompt is None or whole is None:
        return None
    for row in _sample(chats).iter_rows(named=True):
        texts = [message["content"] for message in row["messages"]]
        if not agrees(prompt_of, prompt, roles, texts, ("", "")):
            return None
        if not agrees(whole_of, whole, all_roles, [*texts, row["answer"]], ENDS):
            return None
    return _parted(prompt, whole, tokenizer.eos_token)


def _parted(prompt: Pieces, whole: Pieces, end: str) -> tuple[Pieces, Pieces] | None:
    """(prompt, completion), with the end token behind the whole where the template leaves it out.

    None where the whole does not begin with the prompt, or it depends on the contents whether it ends with the token.
    """
    size = len(prompt)
    last, tail = prompt[-1] if prompt else "", whole[size - 1] if 0 < size <= len(whole) else ""
    if not (
        isinstance(last, str) and isinstance(tail, str) and whole[: size - 1] == prompt[:-1] and tail.startswith(last)
    ):
        return None
    rest = ((tail[len(last) :],) if tail != last else ()) + whole[size:]
    final = rest[-1] if rest else ""
    if not isinstance(final, str):
        return None
    has_end = final.rstrip().endswith(end)
    if not has_end and end.endswith(final.rstrip()):
        return None
    return prompt, rest if has_end else (*rest, end)


def _joined(pieces: Pieces) -> pl.Expr:
    """The text of each conversation; the message after the last one of the prompt is the answer's."""
    contents = pl.col("messages").list
    parts = [
        pl.lit(piece)
        if isinstance(piece, str)
        else contents.get(piece, null_on_oob=True).struct.field("content").fill_null(pl.col("answer"))
        for piece in pieces
    ]
    return pl.concat_str(parts) if parts else pl.lit("")


def _sample(chats: pl.DataFrame) -> pl.DataFrame:
    """A few of the rows: evenly spread, and the shortest and the longest."""
    spread = range(0, chats.height, -(-chats.height // SAMPLED))
    length = chats.select(pl.col("messages").list.eval(pl.element().struct.field("content").str.len_bytes()).list.sum())
    return chats[sorted({*spread, length.to_series().arg_min() or 0, length.to_series().arg_max() or 0})]


def _rendered(chats: pl.DataFrame, positions: list[int], tokenizer: Any) -> pl.DataFrame:
    some = chats[positions]
    rows = zip(some["messages"].to_list(), some["completion"].to_list(), some["line"], strict=True)
    texts = [_texts(prompt, completion, tokenizer, line) for prompt, completion, line in rows]
    return pl.DataFrame(
        [
            pl.Series("position", positions, pl.UInt32),
            pl.Series("prompt_text", [prompt for prompt, _ in texts], pl.String),
            pl.Series("completion_text", [completion for _, completion in texts], pl.String),
        ]
    )


def _texts(prompt: list[Any], completion: list[Any], tokenizer: Any, line: int) -> tuple[str, str]:
    from jinja2 import TemplateError

    try:
        prompt_text = _template(tokenizer, prompt, add_generation_prompt=True)
        text = _template(tokenizer, prompt + completion)
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


def _template(tokenizer: Any, messages: Messages, add_generation_prompt: bool = False) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    return text
