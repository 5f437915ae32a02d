"""Write a checkpoint with ERNIE-4.5-21B-A3B's shapes, random bf16 weights and the demo's tokenizer (43 GB; a GPU).

python benchmarks/full_size/make_checkpoint.py FOLDER [LAYERS=28]
"""

import sys
import time
from pathlib import Path

import torch
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer


def main(folder: Path, layers: int) -> None:
    start = time.time()
    torch.manual_seed(0)  # a GPU's is another one in each process, and so were the losses of each machine, by 4 %
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(num_hidden_layers=layers))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:  # the router too: at transformers' zeros every token would tie
                parameter.normal_(0, 0.02)
        for layer in model.model.layers[1:]:
            layer.mlp.gate.moe_statics.e_score_correction_bias.zero_()
    model.save_pretrained(folder, max_shard_size="5GB")
    load_tokenizer(str(BASE)).save_pretrained(folder)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size:,} parameters written to {folder} in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 28)
