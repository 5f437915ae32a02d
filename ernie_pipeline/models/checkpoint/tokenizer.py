"""The base model's tokenizer and chat template: how messages become the text that the model reads, and its answer text.

A tokenizer may disagree with the model or mislead: what would crash or be wrong in silence is told when it is loaded.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ernie_pipeline.utils.errors import PipelineError, first_line

MARK = re.compile(r"\W.*\w.*\W", re.DOTALL)
"""What stands in brackets of some kind: <s>, [INST], <|im_end|>, >>TITLE<<; not 7, +, \\boxed or a line's end."""
NO_FILES = "Couldn't instantiate the backend tokenizer from one of"
"""How transformers begins a list of what a checkpoint may have instead of what it lacks."""
NAMED = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
)


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
    when it cannot be loaded, lacks either, or makes tokens for which the checkpoint's model has no embedding.
    """
    from transformers import AutoTokenizer  # seconds of imports

    place = f"tokenizer {checkpoint}" + (f" at revision {revision}" if revision else "")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            checkpoint, revision=revision, padding_side="left", trust_remote_code=False
        )
    except Exception as error:  # transformers raises whatever its parsers meet in a broken file
        if _lacks_sentencepiece(checkpoint, error):
            raise PipelineError(
                f"{place} has only tokenizer.model, which the package sentencepiece reads, and it is not installed "
                "here: pip install sentencepiece"
            ) from error
        reason = "none of a tokenizer's files is there" if NO_FILES in str(error) else first_line(error).rstrip(": ")
        raise PipelineError(
            f"{place} cannot be loaded ({reason}); set base_model.name to a reachable hub id or a folder that holds one"
        ) from error
    for attribute in ("chat_template", "eos_token"):
        if not getattr(tokenizer, attribute):
            raise PipelineError(f"{place} has no {attribute}; use an instruction-tuned checkpoint, or add one there")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    _check_ids(tokenizer, _vocabulary_size(checkpoint, revision), place)
    loaded: Tokenizer = tokenizer
    return loaded


def _lacks_sentencepiece(checkpoint: str, error: Exception) -> bool:
    """Whether transformers failed for want of sentencepiece; it asks for tiktoken then, which cannot read the file."""
    folder = Path(checkpoint)
    only_model = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    asks = "tiktoken" in str(error) or "sentencepiece" in str(error).lower()
    return find_spec("sentencepiece") is None and (only_model or (asks and not folder.is_dir()))


def _vocabulary_size(checkpoint: str, revision: str | None) -> int | None:
    """Of the model, as its configuration says: the rows of its embeddings. None where there is no configuration."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
    except Exception:  # transformers raises whatever it meets in a broken file
        return None  # whoever loads the model tells it
    size: int | None = getattr(config.get_text_config(), "vocab_size", None)
    return size


def _check_ids(tokenizer: Any, vocabulary: int | None, place: str) -> None:
    """Raise `PipelineError` unless every token that each text has is one of the model's `vocabulary`.

    Tokens of the tokenizer that no text of ours has may lie beyond: Gemma 3's text models lack one for images.
    """
    if vocabulary is None:
        return
    for name in ("pad_token", "eos_token"):
        number = getattr(tokenizer, f"{name}_id")
        if number is not None and number >= vocabulary:
            raise PipelineError(
                f"{place}: its {name} {getattr(tokenizer, name)!r} is token {number}, and the model has only "
                f"{vocabulary} (0 to {vocabulary - 1}); use the tokenizer that belongs to the model"
            )
    for token in _tokens_of_a_chat(tokenizer):
        if token >= vocabulary:
            raise PipelineError(
                f"{place}: its chat template writes {tokenizer.convert_ids_to_tokens(token)!r}, token {token}, and the "
                f"model has only {vocabulary} (0 to {vocabulary - 1}); use the tokenizer that belongs to the model"
            )


def _tokens_of_a_chat(tokenizer: Any) -> list[int]:
    """Of a short conversation; none where the template refuses it: it is told with the row that it refuses."""
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    try:
        texts = [end_turn(tokenizer, str(tokenizer.apply_chat_template(chat, tokenize=False)))]
        texts.append(prompt_text(tokenizer, chat[:1]))
    except Exception:  # jinja2's errors, and whatever a template raises by itself
        return []
    return [token for ids in token_ids(tokenizer, texts) for token in ids]


def end_turn(tokenizer: Any, text: str) -> str:
    """A conversation's text as the template writes it, ended as the model ends an answer: by its end token.

    A template may close every turn of the assistant by a separator that only stands between turns. ERNIE-4.5's writes
    `<|end_of_sentence|>` (its `sep_token`), and ERNIE was never taught to write that: Baidu's own tools train `</s>`
    in its place. ERNIEKit drops a last one and turns every label `<|end_of_sentence|>` into the end token
    (github.com/PaddlePaddle/ERNIE, ernie/dataset/finetuning.py, `_postprocess_sequence`); PaddleFormers' template
    `ernie_nothink` has `<|end_of_sentence|>` as separator and `</s>` behind the last answer
    (paddleformers/datasets/template/template.py), and so has ms-swift's. Both tokens, one after the other, would teach
    a new way to end. So a separator at the end is replaced; any other end that lacks the end token gets it.
    """
    end, separator = tokenizer.eos_token, getattr(tokenizer, "sep_token", None)
    if text.rstrip().endswith(end):
        return text
    if separator and text.rstrip().endswith(separator):
        text = text.rstrip().removesuffix(separator)
    return text + str(end)


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


def end_tokens(tokenizer: Tokenizer, generation_config: Any) -> list[int]:
    """The tokens that end an answer: those that a checkpoint's generation_config names, and the one trained on.

    Either alone may be wrong: the file may be missing, or name another token than the one that ends our completions.
    """
    ends = generation_config.eos_token_id
    named = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    return list(dict.fromkeys([*named, tokenizer.eos_token_id]))


def answer_texts(tokenizer: Any, answers: Sequence[Sequence[int]]) -> list[str]:
    """The texts of generated tokens, without the tokens that only mark (ends, paddings, turns).

    A tokenizer may call tokens special that are a part of an answer, such as digits: those stay.
    """
    if not answers:
        return []
    added = {token for token, how in tokenizer.added_tokens_decoder.items() if how.special}
    special = added.union(tokenizer.all_special_ids)  # transformers 5: those that have a name alone
    marks = {token for token in special if _is_mark(tokenizer, token)}
    if marks == special:
        texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True)
    else:
        kept = [[token for token in answer if token not in marks] for answer in answers]
        texts = tokenizer.batch_decode(kept, skip_special_tokens=False)
    return texts


def _is_mark(tokenizer: Any, token: int) -> bool:
    """Whether a special token has a name among transformers', or is written in brackets of some kind."""
    if token in (getattr(tokenizer, name, None) for name in NAMED):
        return True
    return MARK.fullmatch(str(tokenizer.convert_ids_to_tokens(token))) is not None
