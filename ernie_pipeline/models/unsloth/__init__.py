"""Backend `unsloth`: what a user of Unsloth expects, its own model, LoRA and kernels, behind the seam of all backends.

Unsloth patches torch, transformers, PEFT and TRL when it is imported: a process that uses this backend uses no other.
"""
