"""The optimizer's state, sharded over the ranks (ZeRO, stage 1: https://arxiv.org/abs/1910.02054)."""
