"""The base model's tokenizer and chat template: how messages become the text that the model reads."""

from collections.abc import Sequence
from typing import Any, Protocol

from ernie_pipeline.utils.errors import PipelineError


class Tokenizer(Protocol):
    """What of transformers' tokenizers is used here."""

    pad_token_id: int
    eos_token_id: int
    eos_token: str

    def __call__(self, text: list[str], **options: bool) -> Any: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: bool) -> Any: ...

    def batch_decode(self, sequences: Sequence[Sequence[int]], **options: bool) -> list[str]: ...


def load_tokenizer(checkpoint: str, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint folder or hub id (at `revision`), with a chat template and an end token.

    It pads on the left, so that batches can be continued, and runs no code from the checkpoint. Raises `PipelineError`
    when it cannot be loaded or lacks either.
    """
    from transformers import AutoTokenizer  # seconds of imports

    place = f"tokenizer {checkpoint}" + (f" at revision {revision}" if revision else "")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            checkpoint, revision=revision, padding_side="left", trust_remote_code=False
        )
    except Exception as error:  # transformers raises whatever its parsers meet in a broken file
        reason = str(error).strip().split("\n")[0].rstrip(": ")
        raise PipelineError(
            f"{place} cannot be loaded ({reason}); set base_model.name to a reachable hub id or a folder that holds one"
        ) from error
    for attribute in ("chat_template", "eos_token"):
        if not getattr(tokenizer, attribute):
            raise PipelineError(f"{place} has no {attribute}; use an instruction-tuned checkpoint, or add one there")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded: Tokenizer = tokenizer
    return loaded


def prompt_text(tokenizer: Tokenizer, messages: Sequence[dict[str, str]]) -> str:
    """The text of a conversation up to where the assistant's answer begins."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts in which the chat template has already put every special token."""
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]
    return encoded


def up_to_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """An answer's tokens up to the first end token and with it: what comes after is not part of the answer."""
    end = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]
