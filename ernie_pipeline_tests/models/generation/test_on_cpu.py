"""A CPU decodes merged weights, by products that are torch's to rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text, token_ids
from ernie_pipeline.models.generation import on_cpu
from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.generate import generate_tokens
from ernie_pipeline.models.generation.merged import merge
from ernie_pipeline.models.generation.on_cpu import OneDnnExperts, OneDnnLinear, cpu_generator
from ernie_pipeline.models.generation.sampler import GREEDY, Sampler
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.peft.backend import PeftModel4bit
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline_tests.models.conftest import QUANTIZATION, logits_of, new_adapted

IDS = torch.arange(5, 45)


@pytest.fixture(scope="module")
def adapted(short_base: BaseCheckpoint) -> Any:
    return new_adapted(checkpoint=Path(short_base.checkpoint))


@pytest.mark.parametrize("biased", [True, False])
def test_a_product_by_onednn_is_torch_s(biased: bool) -> None:
    torch.manual_seed(0)
    weight, bias, hidden = torch.randn(40, 24), torch.randn(40) if biased else None, torch.randn(3, 7, 24)
    torch.testing.assert_close(OneDnnLinear(weight, bias)(hidden), F.linear(hidden, weight, bias))


@pytest.mark.parametrize("tokens", [1, 5, 200])
def test_experts_one_by_one_give_what_they_give_together(tokens: int) -> None:
    """Of 1 token and of 5, some experts have none."""
    torch.manual_seed(0)
    gate_up, down = torch.randn(8, 32, 24), torch.randn(8, 24, 16)
    hidden, weights = torch.randn(tokens, 24), torch.rand(tokens, 2)
    chosen = torch.rand(tokens, 8).topk(2).indices
    one, other = (kind(gate_up, down, F.silu)(hidden, chosen, weights) for kind in (OneDnnExperts, FusedExperts))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)  # of numbers up to 100


def test_the_model_is_merged_and_computes_what_the_4_bit_one_does(adapted: Any) -> None:
    model, kind = cpu_generator(adapted, rows=16, length=64)
    assert kind == "merged float32"
    assert model is not adapted
    assert any(isinstance(each, OneDnnExperts) for each in model.modules())
    assert not any(isinstance(each, FusedExperts) for each in model.modules())
    torch.testing.assert_close(logits_of(model, IDS), logits_of(merge(adapted), IDS), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits_of(model, IDS), logits_of(adapted, IDS), atol=1e-4, rtol=0)


def test_in_bfloat16_too_by_torch_s_own_products() -> None:
    model, kind = cpu_generator(
        peft_backend.load_base(str(BASE), None, QUANTIZATION | {"compute_dtype": "bfloat16"}, "cpu"), 8, 64
    )
    assert kind == "merged bfloat16"
    assert any(isinstance(each, FusedExperts) for each in model.modules())
    found = generate_tokens(model, [[5, 6, 7]] * 3, max_new_tokens=5, pad_token_id=0, end_tokens=[], rows=2)
    assert found.tokens[0] == found.tokens[1] == found.tokens[2]


def test_it_stays_in_4_bits_where_memory_is_short_or_an_answer_is_more_than_the_highest_logits(
    adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = adapted.get_base_model()
    with monkeypatch.context() as patched:
        patched.setattr(base.generation_config, "repetition_penalty", 1.2)
        assert cpu_generator(adapted, 16, 64) == (adapted, "4-bit")
    assert cpu_generator(adapted, 10**9, 64) == (adapted, "4-bit"), "a cache for so many rows is nowhere"
    monkeypatch.setattr(on_cpu, "SHARE", 0.0)
    assert cpu_generator(adapted, 16, 64) == (adapted, "4-bit")


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(1.0, 0.9)])
def test_a_loaded_model_generates_that_way_what_it_generates_in_4_bits(
    short_spec: ModelSpec, adapted: Any, sampler: Sampler
) -> None:
    model = PeftModel4bit(short_spec, "cpu", adapted)
    tokenizer = load_tokenizer(str(BASE))
    rows = [row["responses_create_params"]["input"] for row in demo_rows(20, seed=3)]
    prompts = [ids for ids in token_ids(tokenizer, [prompt_text(tokenizer, each) for each in rows]) for _ in range(2)]
    seeds = [*range(40)]
    made = model.generate(prompts, Sampling(12, *sampler), rows=16, seeds=seeds)
    assert made.how == "merged float32"
    plain = generate_tokens(
        adapted, prompts, max_new_tokens=12, sampler=sampler, seeds=seeds, pad_token_id=0, end_tokens=[2], rows=16
    )
    assert made.tokens == plain.tokens
    for mine, theirs in zip(made.logprobs, plain.logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-3)
    few = model.generate(prompts[:4], Sampling(12, *sampler), rows=16, seeds=seeds[:4])
    assert (few.how, few.tokens) == ("4-bit", made.tokens[:4])
    assert isinstance(adapted.get_base_model().lm_head, nn.Linear), "the model itself is as it was"
