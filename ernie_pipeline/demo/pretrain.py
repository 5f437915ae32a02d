"""Pre-train the demo's base model from scratch: `python -m ernie_pipeline.demo.pretrain OUT_DIR`, minutes on a GPU.

A small `Ernie4_5_MoeForCausalLM`, the real class with a dense first layer, routed and shared experts, on the text of
`corpus.py`. It writes what a hub repository would hold, and `pretraining.json`, which says how it was made.
"""

import argparse
import hashlib
import itertools
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

from ernie_pipeline.demo.corpus import texts
from ernie_pipeline.demo.problems import demo_rows, expressions
from ernie_pipeline.demo.tokenizer import VOCABULARY, train_tokenizer

EXCLUDED_ROWS, EXCLUDED_SEED = 2400, 0  # the rows of presets/demo.toml: none of them may stand in the text
HASHED_TEXTS = 10_000
ANSWER_MARK = " Answer:"  # of the chat template


def excluded_questions(file: Path | None = None) -> list[str]:
    """The questions of the demo recipe, training and evaluation rows alike, or those of a JSONL file of such rows."""
    if file:
        return [json.loads(line)["question"] for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["question"] for row in demo_rows(EXCLUDED_ROWS, EXCLUDED_SEED)]


def text_hash(seed: int, excluded: frozenset[str]) -> str:
    """A hash of the first texts: when the generator no longer gives it, the checkpoint is not of this text."""
    return hashlib.sha256("\0".join(itertools.islice(texts(seed, excluded), HASHED_TEXTS)).encode()).hexdigest()


class PackedTexts(IterableDataset[torch.Tensor]):
    """Endless rows of `length` token ids: texts one after the other, each between <s> and </s>."""

    def __init__(self, tokenizer: Any, excluded: frozenset[str], length: int, seed: int):
        self.tokenizer, self.excluded, self.length, self.seed = tokenizer, excluded, length, seed

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        stream = texts(self.seed + (worker.id if worker else 0), self.excluded)
        buffer: list[int] = []
        while True:
            pieces = [piece for text in itertools.islice(stream, 1000) for piece in _pieces(text)]
            for encoding in self.tokenizer.backend_tokenizer.encode_batch(pieces, add_special_tokens=False):
                buffer += encoding.ids
            rows = len(buffer) // self.length
            yield from torch.tensor(buffer[: rows * self.length]).view(rows, self.length)
            buffer = buffer[rows * self.length :]


def _pieces(text: str) -> tuple[str, ...]:
    """A text between <s> and </s>, in the parts that are tokenised apart: question and answer, as a chat's are."""
    question, mark, answer = text.partition(ANSWER_MARK)
    return (f"<s>{question}{mark}", f"{answer}</s>") if mark else (f"<s>{text}</s>",)


def new_model(seed: int) -> Ernie4_5_MoeForCausalLM:
    """7.3 million random parameters. The router starts random too: at transformers' zeros every token would tie."""
    torch.manual_seed(seed)
    config = Ernie4_5_MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=768,
        moe_intermediate_size=160,
        moe_num_experts=8,
        moe_k=2,
        moe_num_shared_experts=1,
        max_position_embeddings=2048,
        router_aux_loss_coef=0.01,
        experts_implementation="grouped_mm" if torch.cuda.is_available() else "eager",
    )
    model = Ernie4_5_MoeForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("mlp.gate.weight"):
            torch.nn.init.normal_(parameter, std=config.initializer_range)
    return model


class MasterWeights:
    """AdamW on fp32 copies of the model's bf16 weights, with a cosine schedule after a linear warm-up."""

    def __init__(self, model: torch.nn.Module, peak: float, steps: int, warmup: int = 100):
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone() for p in self.weights]
        self.optimizer = torch.optim.AdamW(self.masters, lr=peak, betas=(0.9, 0.95), weight_decay=0.05)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))) + 0.01),
        )

    def step(self) -> None:
        for master, weight in zip(self.masters, self.weights, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            for master, weight in zip(self.masters, self.weights, strict=True):
                weight.copy_(master)


def _train(model: Any, rows: Iterable[torch.Tensor], steps: int, peak: float, start: float) -> list[dict[str, float]]:
    """The losses of every hundredth step and the last, with the seconds since `start`."""
    optimizer, losses = MasterWeights(model, peak, steps), list[dict[str, float]]()
    for step, ids in zip(range(1, steps + 1), rows, strict=False):
        ids = ids.to(model.device, non_blocking=True)
        loss = model(input_ids=ids, labels=ids, use_cache=False, output_router_logits=True).loss
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            losses.append({"step": step, "loss": round(loss.item(), 4), "seconds": round(time.time() - start, 1)})
            print(losses[-1], flush=True)
    return losses


def pretrain(
    out: Path, problems: Path | None, steps: int, batch: int, length: int, peak: float, seed: int, workers: int
) -> dict[str, Any]:
    """Train, write the checkpoint to `out`, and return what `pretraining.json` says."""
    start = time.time()
    questions = excluded_questions(problems)
    excluded = frozenset().union(*(expressions(question) for question in questions))
    tokenizer = train_tokenizer(itertools.islice(texts(seed - 1, excluded), 50_000), questions)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(seed).to(device=device, dtype=torch.bfloat16).train()
    rows = DataLoader(PackedTexts(tokenizer, excluded, length, seed), batch_size=batch, num_workers=workers)
    losses = _train(model, rows, steps, peak, start)
    model.config._experts_implementation = None
    model.config.use_cache = True
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "tokens": steps * batch * length,
        "peak_learning_rate": peak,
        "seed": seed,
        "excluded_rows": len(questions),
        "excluded_expressions": len(excluded),
        "text_sha256": text_hash(seed, excluded),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "seconds": round(time.time() - start, 1),
        "losses": losses,
    }
    (out / "pretraining.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=Path, help="JSONL of the rows to keep out; default: the demo recipe's")
    parser.add_argument("--steps", type=int, default=3800)
    parser.add_argument("--batch", type=int, default=410, help="rows a step")
    parser.add_argument("--length", type=int, default=160, help="tokens a row")
    parser.add_argument("--peak", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=14, help="processes that make text")
    arguments = parser.parse_args()
    pretrain(**vars(arguments))


if __name__ == "__main__":
    main()
