"""Backend `peft` on a checkpoint of the real size: load, audit, training steps, generation. Prints one RESULT line.

    python benchmarks/full_size/peft_backend.py CHECKPOINT [STEPS]

CHECKPOINT is a folder with ERNIE-4.5-21B-A3B's shapes; random weights do (make_checkpoint.py): speed and
memory are real on them, the losses mean nothing. Each step has 8 rows of random tokens of log-normal length with
a median of 130, as the rows of Nemotron-RL are.
"""

import json
import sys
import time
from typing import Any

import torch

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.audit import totals
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.tokenizer import token_ids
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Lora, Quantization

GIB = 2**30


def main(checkpoint: str, steps: int) -> None:
    start = time.time()
    base = BaseCheckpoint(name=checkpoint, checkpoint=checkpoint)
    loaded_model = backend_named("peft").load(ModelSpec(backend="peft", base=base, quantization=Quantization()), "cuda")
    loaded = {"load_s": round(time.time() - start, 1), "loaded_gib": round(torch.cuda.memory_allocated() / GIB, 2)}
    loaded_model.add_adapter(Lora(), seed=0)
    sums = totals(loaded_model.audit(training=True))
    model: Any = loaded_model.module
    print("loaded and audited", loaded, sums, flush=True)

    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    lengths: Any = torch.distributions.LogNormal(torch.tensor(130.0).log(), 0.5)
    seconds, tokens = [], []
    torch.cuda.reset_peak_memory_stats()
    for step in range(steps):
        torch.manual_seed(step)
        rows = lengths.sample((8,)).clamp(40, 2048).int().tolist()
        ids = torch.randint(4, 100_000, (8, max(rows)), device="cuda")
        mask = (torch.arange(max(rows), device="cuda")[None] < torch.tensor(rows, device="cuda")[:, None]).long()
        torch.cuda.synchronize()
        began = time.time()
        model(
            input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=False
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.time() - began)
        tokens.append(sum(rows))
        print(f"step {step}: {seconds[-1]:.2f} s", flush=True)
    counted = slice(1, None)
    training = {
        "tokens_per_s": round(sum(tokens[counted]) / sum(seconds[counted])),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
    }
    model.eval()
    began = time.time()
    loaded_model.generate(token_ids(loaded_model.tokenizer, ["What is 2 + 2? " * 4] * 16), Sampling(16), rows=16)
    generation = {"generated_tokens_per_s": round(16 * 16 / (time.time() - began), 1)}
    result = {"device": torch.cuda.get_device_name(), **loaded, **sums, **training, **generation}
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
