# ruff: noqa: RUF001 (letters that look like others are meant)
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_pipeline.data.chat.template import chat_rows
from ernie_pipeline.data.chat.tokens import drop_long, most_tokens, with_tokens
from ernie_pipeline_tests.data.samples import frame

ROWS = frame([("What is 1 + 1?", r"\(2\)"), ("Was ist ½ + ½?", "1")])
TEXT = "ab 1 ½é\u0301ﷺ¼日𝒳e\u0301</s>é\ufb03\n"


def bpe(normalizer: Any = None, metaspace: bool = False, space_is_known: bool = True, model: str = "BPE") -> Any:
    """A tokenizer whose letters a, b, c are tokens and all else bytes: as many tokens for a text as there can be."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [*"abc", "▁"] if space_is_known else [*"abc"]
    vocabulary = {
        token: i for i, token in enumerate(["<unk>", "</s>", *letters, *(f"<0x{i:02X}>" for i in range(256))])
    }
    if model == "BPE":
        core = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    else:
        core = models.WordLevel(vocab=vocabulary, unk_token="<unk>")
    backend = Tokenizer(core)
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.normalizer = normalizers.Sequence(normalizer) if isinstance(normalizer, list) else normalizer
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def kinds_of_tokenizers() -> dict[str, Any]:
    from tokenizers import normalizers as n

    return {
        "bytes": bpe(),
        "nfkc": bpe(n.NFKC()),
        "nfd": bpe(n.NFD()),
        "sentencepiece": bpe([n.Prepend("▁"), n.Replace(" ", "▁")]),
        "metaspace": bpe(metaspace=True),
        "unknown space": bpe([n.Prepend("▁"), n.Replace(" ", "▁")], space_is_known=False),
        "unknown metaspace": bpe(metaspace=True, space_is_known=False),
        "writes out": bpe(n.Replace("a", "bbbbbbbb")),
        "words": bpe(model="WordLevel"),
    }


KINDS = kinds_of_tokenizers()


def test_tokens_count_both_texts_and_the_end_token_once(tokenizer: Any) -> None:
    chats = with_tokens(chat_rows(ROWS, tokenizer), tokenizer)
    bytes_and_end = [
        len((row["prompt_text"] + row["completion_text"].removesuffix("</s>")).encode()) + 1
        for row in chats.iter_rows(named=True)
    ]
    assert chats["tokens"].to_list() == bytes_and_end
    assert chats.schema["tokens"] == pl.UInt32


def test_rows_of_exactly_the_most_tokens_stay(tokenizer: Any) -> None:
    chats = chat_rows(ROWS, tokenizer)
    short, long = sorted(with_tokens(chats, tokenizer)["tokens"])
    kept, dropped = drop_long(chats, short, tokenizer)
    assert with_tokens(kept, tokenizer)["tokens"].to_list() == [short]
    assert kept.columns == chats.columns
    assert dropped.select("filter", "reason").rows() == [
        ("max_tokens", f"prompt and completion have {long} tokens, more than {short}")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_long_rows_are_those_that_are_long_when_counted(kind: str) -> None:
    texts = [TEXT[i:j] for i in range(0, len(TEXT), 3) for j in range(i + 1, len(TEXT), 4)]
    chats = pl.DataFrame({"prompt_text": texts, "completion_text": ["a b</s>"] * len(texts)}).with_columns(
        line=pl.int_range(1, pl.len() + 1), question=pl.lit("q"), expected_answer=pl.lit("1")
    )
    exact = with_tokens(chats, KINDS[kind])
    for limit in range(1, int(exact["tokens"].max()) + 2):
        kept, dropped = drop_long(chats, limit, KINDS[kind])
        assert kept["line"].to_list() == exact.filter(pl.col("tokens") <= limit)["line"].to_list()
        assert dropped["line"].to_list() == exact.filter(pl.col("tokens") > limit)["line"].to_list()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*TEXT, "</s>", " ", "a", "�"]), max_size=20).map("".join), st.sampled_from(sorted(KINDS))
)
def test_there_are_no_more_tokens_than_the_bound(text: str, kind: str) -> None:
    bound = most_tokens(pl.Series([text]), KINDS[kind])[0]
    count = len(KINDS[kind](text, add_special_tokens=False)["input_ids"])
    assert bound is None or count <= bound, (count, bound)


def test_the_bound_is_known_for_plain_text_and_unknown_where_it_cannot_be() -> None:
    known = {kind for kind, tokenizer in KINDS.items() if most_tokens(pl.Series(["abc"]), tokenizer)[0] is not None}
    assert known == {"bytes", "nfkc", "nfd", "sentencepiece", "metaspace"}
    assert most_tokens(pl.Series(["½"]), KINDS["nfkc"])[0] is None


def test_what_cannot_be_too_long_is_not_tokenised(make_tokenizer: Callable[..., Any]) -> None:
    class Refuses:
        backend_tokenizer = make_tokenizer().backend_tokenizer

    chats = chat_rows(ROWS, make_tokenizer())
    kept, dropped = drop_long(chats, 100, Refuses())  # type: ignore[arg-type]
    assert (kept.height, dropped.height) == (2, 0)
    with pytest.raises(TypeError):
        drop_long(chats, 10, Refuses())  # type: ignore[arg-type]


def test_no_rows_are_none_too_long(tokenizer: Any) -> None:
    kept, dropped = drop_long(chat_rows(ROWS.clear(), tokenizer), 5, tokenizer)
    assert (kept.height, dropped.height) == (0, 0)
