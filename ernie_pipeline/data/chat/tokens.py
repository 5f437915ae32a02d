r"""How many tokens the rows have: counted where the number is wanted, bounded where only the limit matters."""

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from ernie_pipeline.data.filter.reasons import drop_rows
from ernie_pipeline.data.tables.slices import slices_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 100
TEXT = pl.concat_str("prompt_text", "completion_text")


def with_tokens(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> pl.DataFrame:
    """`rows` with `tokens` [UInt32], the length of prompt text and completion text together."""
    return rows.with_columns(_token_counts(rows.select(TEXT).to_series(), tokenizer))


def drop_long(
    rows: pl.DataFrame, max_tokens: int, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped): rows of at most `max_tokens` tokens, and the longer ones as the filter `max_tokens`.

    Only texts that `most_tokens` does not bound by the limit are tokenised.
    """
    tokens = pl.concat([_tokens_if_many(some, max_tokens, tokenizer) for some in slices_of(rows)])
    reason = pl.format(f"prompt and completion have {{}} tokens, more than {max_tokens}", "tokens")
    reasons = tokens.to_frame().select(pl.when(pl.col("tokens") > max_tokens).then(reason)).to_series()
    kept, dropped = pl.collect_all(drop_rows(rows.lazy(), "max_tokens", pl.lit(reasons)))
    return kept, dropped


def _tokens_if_many(rows: pl.DataFrame, max_tokens: int, tokenizer: Any) -> pl.Series:
    """`tokens`: how many each row has where that may be more than `max_tokens`, else null."""
    texts = rows.select(TEXT).to_series()
    unsure = (most_tokens(texts, tokenizer) > max_tokens).fill_null(True)
    counts = pl.repeat(None, rows.height, dtype=pl.UInt32, eager=True).alias("tokens")
    return counts.scatter(unsure.arg_true(), _token_counts(texts.filter(unsure), tokenizer))


def most_tokens(texts: pl.Series, tokenizer: Any) -> pl.Series:
    """As many tokens as each text can have at most; null where nothing is known without tokenising it.

    BPE starts from the characters, or the bytes of their UTF-8 form, and only merges, and a special token stands for
    several bytes; so there are no more tokens than bytes of the *normalised* text. ASCII is in each of Unicode's normal
    forms already. A pre-tokenizer or normalizer may put one space in front of the text and of what follows each special
    token, and those are longer than one byte. Holds for byte-level BPE (GPT-2, Llama 3, Qwen, the demo) and for
    SentencePiece's BPE with byte fallback (Llama 2, ERNIE-4.5); other tokenizers count each text.
    """
    size = texts.str.len_bytes()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE" or not _adds_one_space_at_most(backend):
        return pl.Series([None] * len(texts), dtype=pl.UInt32)
    if backend.normalizer is not None:
        is_ascii = size == texts.str.len_chars()
        size = size.to_frame("size").select(pl.when(is_ascii).then("size")).to_series()
    return size + 1


def _adds_one_space_at_most(backend: Any) -> bool:
    if any(len(token.content.encode()) < 2 for token in backend.get_added_tokens_decoder().values()):
        return False
    normalizers, pre_tokenizers = (_parts(part) for part in (backend.normalizer, backend.pre_tokenizer))
    return all(_is_harmless(part, backend) for part in normalizers) and all(
        part["type"] in ("ByteLevel", "Split", "Digits", "Whitespace", "WhitespaceSplit", "Punctuation")
        or (part["type"] == "Metaspace" and _is_token(part["replacement"], backend))
        for part in pre_tokenizers
    )


def _is_harmless(normalizer: dict[str, Any], backend: Any) -> bool:
    """Unicode's normal forms; and SentencePiece's sign for a space, if that is one token and not three bytes."""
    kind = normalizer["type"]
    if kind == "Replace":
        return normalizer["pattern"] == {"String": " "} and _is_token(normalizer["content"], backend)
    if kind == "Prepend":
        return _is_token(normalizer["prepend"], backend)
    return kind in ("NFC", "NFKC", "NFD", "NFKD")


def _is_token(text: str, backend: Any) -> bool:
    return len(text) == 1 and backend.token_to_id(text) is not None


def _parts(part: Any) -> list[dict[str, Any]]:
    """The parts of a normalizer or pre-tokenizer as it stands in tokenizer.json; a sequence is taken apart."""
    if part is None:
        return []
    stated = json.loads(part.__getstate__())
    inner: list[dict[str, Any]] = stated.get("normalizers") or stated.get("pretokenizers") or [stated]
    return inner


def _token_counts(texts: pl.Series, tokenizer: Any) -> pl.Series:
    counts: list[int] = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH].to_list()
        encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False)
        counts += map(len, encoded["input_ids"])
    return pl.Series("tokens", counts, pl.UInt32)
