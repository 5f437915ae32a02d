"""Whether two ways of answering greedily agree up to ties."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, up_to_end

NEW_TOKENS = 48
TIE = 2**-5
"""Of the logit: four steps of bfloat16."""


def transformers_answers(model: Any, prompts: list[str]) -> list[list[int]]:
    """Those of the model's own `generate`."""
    tokenizer = load_tokenizer(str(BASE))
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to("cuda")
    output = model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    return [up_to_end(tokens, [2]) for tokens in output[:, batch["input_ids"].shape[1] :].tolist()]


def assert_same_but_for_ties(
    model: Any, prompts: Sequence[list[int]], found: Sequence[list[int]], wanted: Sequence[list[int]]
) -> None:
    """Where an answer first differs from the wanted one, its token is the highest up to rounding.

    That is decided by a pass of the model over what they share, or else by one in fp32: where two experts tie in the
    router, rounding decides which of them answers, and the logits in bfloat16 differ by more than a few of its steps.
    """
    same = 0
    for prompt, own, other in zip(prompts, found, wanted, strict=True):
        step = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None)
        if step is None:
            assert own == other
            same += 1
        elif _below_highest(model, prompt + own[:step], own[step]) > TIE:
            exact = copy.deepcopy(model).cpu().float()
            assert _below_highest(exact, prompt + own[:step], own[step]) <= TIE
    assert same > 0.7 * len(prompts)


def _below_highest(model: Any, tokens: list[int], token: int) -> float:
    """How far the logit of `token` after `tokens` is below the highest, as a share of that one."""
    with torch.no_grad():
        ids = torch.tensor([tokens], device=model.lm_head.weight.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    return float((logits.max() - logits[token]) / logits.max().abs())
