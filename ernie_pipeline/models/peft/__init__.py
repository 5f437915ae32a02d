"""Backend `peft`: every expert a linear layer of its own, 4-bit by bitsandbytes, LoRA by PEFT."""
