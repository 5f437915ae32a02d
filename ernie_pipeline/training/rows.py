"""The split's rows as token ids and a mask of what the loss counts."""

from pathlib import Path
from typing import Any

from ernie_pipeline.engines.chat import token_ids


def training_rows(file: Path, tokenizer: Any, *, completion_only_loss: bool) -> Any:
    """A `datasets.Dataset` of `input_ids`, with `completion_mask` (1 where the loss counts) for a loss on completions.

    Prompt and completion are tokenised apart and joined, as they are when the model answers: a token that would span
    the two cannot occur there.
    """
    import pyarrow.parquet as pq
    from datasets import Dataset

    table = pq.read_table(file, columns=["prompt_text", "completion_text"])
    prompts = token_ids(tokenizer, table["prompt_text"].to_pylist())
    completions = token_ids(tokenizer, table["completion_text"].to_pylist())
    columns = {"input_ids": [p + c for p, c in zip(prompts, completions, strict=True)]}
    if completion_only_loss:
        columns["completion_mask"] = [[0] * len(p) + [1] * len(c) for p, c in zip(prompts, completions, strict=True)]
    return Dataset.from_dict(columns)
