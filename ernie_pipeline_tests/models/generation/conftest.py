from typing import Any

import pytest

VOCABULARY = 300


@pytest.fixture(scope="session")
def tiny() -> Any:
    """ERNIE-4.5's layers, one dense and one routed, tiny and random: what is counted here is steps."""
    import torch
    from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

    from ernie_pipeline.models.generation.merged import merge
    from ernie_pipeline.models.peft.experts import unfuse_experts

    torch.manual_seed(0)
    config = Ernie4_5_MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        moe_num_experts=4,
        moe_k=2,
        initializer_range=0.4,  # so that answers differ
        pad_token_id=0,
        eos_token_id=2,
    )
    model = Ernie4_5_MoeForCausalLM(config).eval()
    unfuse_experts(model)
    return merge(model)
