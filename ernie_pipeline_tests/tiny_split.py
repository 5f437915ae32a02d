"""A split to train on in seconds."""

import random
from pathlib import Path
from typing import Any


def write_tiny_split(folder: Path) -> Path:
    """An artifact like `math_split`'s: 64 training and 16 evaluation sums, in the demo model's chat template."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text

    tokenizer, rng = load_tokenizer(str(BASE)), random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(80):
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        question = f"What is {a} + {b}?"
        prompt = [{"role": "user", "content": f"Put the answer in a box. {question}"}]
        rows.append(
            {
                "row_id": f"{number:016x}",
                "kind": "integer",
                "question": question,
                "answer": str(a + b),
                "prompt": prompt,
                "prompt_text": prompt_text(tokenizer, prompt),
                "completion_text": f"\\boxed{{{a + b}}}</s>",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows[:64]), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[64:]), folder / "eval.parquet")
    return folder
