"""The tokens of a GGUF file are those of the checkpoint's tokenizer, by llama.cpp's own way to join them."""

from itertools import pairwise
from typing import Any

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.registry.export.gguf_tokenizer import BYTE, CONTROL, UNKNOWN, UNUSED, GgufTokenizer, gguf_tokenizer
from ernie_pipeline.registry.export.source import Source
from ernie_pipeline.utils.errors import PipelineError

TEXTS = ("What is 12 + 30?", "Compute the sum of 3x and 4y, then add 17.", "é ∑ x²")


def joined_by_scores(text: str, tokenizer: GgufTokenizer) -> list[int]:
    """llama.cpp's SentencePiece BPE: the neighbours whose token has the highest score first, the leftmost of equals;
    what is no token is written byte by byte."""
    numbers = {token: number for number, token in enumerate(tokenizer.tokens)}
    score_of = dict(zip(tokenizer.tokens, ((score,) for score in tokenizer.scores), strict=True))
    pieces = list(text.replace(" ", "▁"))
    while pairs := [(own, -i) for i, pair in enumerate(pairwise(pieces)) if (own := score_of.get("".join(pair)))]:
        at = -max(pairs)[1]
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
    known = [[numbers[piece]] if piece in numbers else [] for piece in pieces]
    by_bytes = [[numbers[f"<0x{byte:02X}>"] for byte in piece.encode()] for piece in pieces]
    return [number for one, other in zip(known, by_bytes, strict=True) for number in one or other]


def test_sentencepiece_s_kind_joins_the_same_tokens_by_scores(hub_source: Source) -> None:
    tokenizer: Any = load_tokenizer(hub_source.spec.base.checkpoint)
    found = gguf_tokenizer(tokenizer, 768, "hub")
    assert (found.model, found.pre, found.add_bos, found.add_space_prefix) == ("llama", "default", False, False)
    for text in TEXTS:
        assert joined_by_scores(text, found) == tokenizer(text, add_special_tokens=False)["input_ids"]
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert (kinds["<unk>"], kinds["<0x41>"], kinds["<|end_of_sentence|>"]) == (UNKNOWN, BYTE, CONTROL)
    assert found.types[-1] == UNUSED
    assert "Assistant: " in found.chat_template


def test_the_demo_s_kind_is_byte_level_with_digits_apart() -> None:
    tokenizer: Any = load_tokenizer(str(BASE))
    found = gguf_tokenizer(tokenizer, 768, "demo")
    assert (found.model, found.pre, found.add_bos) == ("gpt2", "smollm", False)
    assert found.tokens[:3] == ["<pad>", "<s>", "</s>"]
    assert list(found.types[:3]) == [CONTROL] * 3
    assert len(found.merges) == 427
    assert found.ids == {"bos": 1, "eos": 2, "pad": 0}


def test_a_rule_that_llama_cpp_does_not_have_is_refused() -> None:
    from tokenizers import pre_tokenizers

    tokenizer: Any = load_tokenizer(str(BASE))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(PipelineError, match=r"a rule that is not known to be one of llama\.cpp's"):
        gguf_tokenizer(tokenizer, 768, "demo")
