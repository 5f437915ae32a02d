"""A tokenizer as llama.cpp reads it from a GGUF file: its kind, its tokens and how they are joined.

Two kinds of BPE are known there. "llama" is SentencePiece's: whichever neighbours make the token with the highest score
are joined first. tokenizer.json has the order of its merges instead, which is that of the scores, so a token's score is
minus the rank of the first merge that makes it. "gpt2" is byte-level: it has the merges, and the name of a rule by
which text is cut before ("pre"). (Facts of llama.cpp's src/llama-vocab.cpp and conversion/base.py.)
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ernie_pipeline.utils.errors import PipelineError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""llama.cpp's types of tokens."""
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
UNUSED_SCORE = -10000.0
DIGITS_APART = (
    [{"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": False}],
    [{"type": "Digits", "individual_digits": True}],
)
"""Steps before the byte-level one that llama.cpp's "smollm" has too: each digit alone, then GPT-2's rule."""
NAMED = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unk_token_id", "pad": "pad_token_id"}


@dataclass(frozen=True)
class GgufTokenizer:
    """`model` and `pre`: llama.cpp's names of its kind. `scores` of kind "llama", `merges` of kind "gpt2"."""

    model: str
    pre: str
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[str]
    ids: dict[str, int]
    add_bos: bool
    add_space_prefix: bool
    chat_template: str


def gguf_tokenizer(tokenizer: Any, vocabulary: int, place: str) -> GgufTokenizer:
    """Of a tokenizer of transformers' for a model with so many tokens; `place`: what it is of, for a sentence.

    Raises `PipelineError` for a kind that llama.cpp does not have.
    """
    values = json.loads(tokenizer.backend_tokenizer.to_str())
    model = values["model"]
    if model.get("type") != "BPE":
        raise PipelineError(f"{place}: its tokenizer is a {model.get('type')}, and GGUF is written here of BPE alone")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    added = {token["id"]: token for token in values["added_tokens"]}
    tokens = [f"[PAD{number}]" for number in range(vocabulary)]
    types = [UNUSED] * vocabulary
    for text, number in {**model["vocab"], **{token["content"]: n for n, token in added.items()}}.items():
        if number >= vocabulary:
            raise PipelineError(f"{place}: its tokenizer has token {number}, and the model only {vocabulary} tokens")
        tokens[number], types[number] = text, _type(text, added.get(number), model)
    is_llama = bool(model["byte_fallback"])
    template = tokenizer.chat_template
    return GgufTokenizer(
        model="llama" if is_llama else "gpt2",
        pre="default" if is_llama else _pre(values["pre_tokenizer"], place),
        tokens=tokens,
        types=types,
        scores=_scores(tokens, types, pairs) if is_llama else (),
        merges=() if is_llama else [" ".join(pair) for pair in pairs],
        ids={name: number for name, key in NAMED.items() if (number := getattr(tokenizer, key, None)) is not None},
        add_bos=_adds_bos(tokenizer),
        add_space_prefix=is_llama and _puts_space(values),
        chat_template=template if isinstance(template, str) else "",
    )


def _type(text: str, added: dict[str, Any] | None, model: dict[str, Any]) -> int:
    if text == model.get("unk_token"):
        return UNKNOWN
    if added:
        return CONTROL if added["special"] else USER_DEFINED
    return BYTE if model["byte_fallback"] and BYTE_TOKEN.fullmatch(text) else NORMAL


def _scores(tokens: Sequence[str], types: Sequence[int], pairs: Sequence[Sequence[str]]) -> list[float]:
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, rank)
    scores = []
    for text, kind in zip(tokens, types, strict=True):
        made_of_others = kind in (NORMAL, USER_DEFINED)
        unused = UNUSED_SCORE if kind == UNUSED else 0.0
        scores.append(-float(ranks.get(text, len(pairs))) if made_of_others else unused)
    return scores


def _pre(pre_tokenizer: dict[str, Any] | None, place: str) -> str:
    """llama.cpp's name of the rule by which text is cut. Raises `PipelineError` where it has none like it."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    last = steps[-1] or {}
    if last.get("type") == "ByteLevel" and last.get("use_regex") and not last.get("add_prefix_space"):
        before = steps[:-1]
        if not before:
            return "gpt-2"
        if before in DIGITS_APART:
            return "smollm"
    raise PipelineError(
        f"{place}: its tokenizer cuts text by a rule that is not known to be one of llama.cpp's, so a GGUF file of it "
        "would read other tokens; export it merged, and convert it with llama.cpp's own converter"
    )


def _adds_bos(tokenizer: Any) -> bool:
    """Whether it begins every text with its first token."""
    ids = tokenizer("1")["input_ids"]
    return len(ids) > 0 and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _puts_space(values: dict[str, Any]) -> bool:
    """Whether a space is put in front of every text, as SentencePiece's "add_dummy_prefix" says."""
    text = json.dumps([values["normalizer"], values["pre_tokenizer"]])
    return '"Prepend"' in text or '"prepend_scheme": "always"' in text or '"prepend_scheme": "first"' in text
