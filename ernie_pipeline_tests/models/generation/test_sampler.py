import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
from ernie_pipeline.models.generation.decode import decode
from ernie_pipeline.models.generation.generate import generate_tokens
from ernie_pipeline.models.generation.merged import merge
from ernie_pipeline.models.generation.nucleus import nucleus
from ernie_pipeline.models.generation.sampler import GREEDY, Sampler, uniform
from ernie_pipeline.models.generation.schedule import DecodeSettings
from ernie_pipeline_tests.first_layers import write_first_layers
from ernie_pipeline_tests.models.conftest import new_adapted

ROWS = 20_000


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of so many layers that its greedy answers to unlike prompts are unlike."""
    base = write_first_layers(tmp_path_factory.mktemp("layers") / "base", 3)
    return new_adapted(checkpoint=Path(base.checkpoint))


def splitmix64(seed: int, step: int) -> float:
    """By Python's integers, as the paper has it."""
    bits = (seed * 0x94D049BB133111EB + (step + 1) * 0x9E3779B97F4A7C15) % 2**64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return float((bits ^ (bits >> 31)) >> 11) / 2**53


def test_its_numbers_are_splitmix64_s() -> None:
    rng = random.Random(0)
    cases = [(rng.randrange(2**62), rng.randrange(5000)) for _ in range(200)] + [(0, 0), (2**63 - 1, 7), (1, 0)]
    seeds, steps = (torch.tensor(each) for each in zip(*cases, strict=True))
    assert uniform(seeds, steps).tolist() == [splitmix64(*case) for case in cases]


def test_they_are_uniform_over_seeds_and_over_steps_and_the_two_are_unrelated() -> None:
    numbers = uniform(torch.arange(400)[:, None], torch.arange(50)[None])
    assert len(set(numbers.flatten().tolist())) == ROWS
    for each in (numbers, numbers.T):
        parts = torch.histc(each.flatten().float(), 20, 0, 1)
        assert (parts - ROWS / 20).abs().max() < 5 * (ROWS / 20) ** 0.5
        related = torch.corrcoef(torch.stack([each[:-1].flatten(), each[1:].flatten()]))[0, 1]
        assert related.abs() < 0.03


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8), (1.0, 0.5), (1.0, 1e-9)])
def test_tokens_come_as_often_as_their_probability_says(temperature: float, top_p: float) -> None:
    logits = torch.tensor([2.0, -torch.inf, 1.0, 0.0, 1.5, -torch.inf])
    chances = (logits / temperature).softmax(0)
    ordered, ids = chances.sort(descending=True)
    kept = ids[ordered.cumsum(0) - ordered < top_p]
    wanted = torch.zeros(6)
    wanted[kept] = chances[kept] / chances[kept].sum()
    drawn = Sampler(temperature, top_p).draw(logits.expand(ROWS, 6), torch.arange(ROWS), torch.tensor([3]))
    counts = Counter(drawn.tokens.tolist())
    for token in range(6):
        deviation = (wanted[token] * (1 - wanted[token]) / ROWS) ** 0.5
        assert abs(counts[token] / ROWS - wanted[token]) <= 4 * deviation
    torch.testing.assert_close(drawn.logprobs, chances.log()[drawn.tokens])


def test_of_equal_tokens_those_of_lower_ids_are_kept() -> None:
    probabilities = torch.tensor([[0.1, 0.2, 0.1, 0.2, 0.2, 0.2]])
    assert (nucleus(probabilities, 0.5) > 0).tolist() == [[False, True, False, True, True, False]]
    assert (nucleus(probabilities, 0.85) > 0).tolist() == [[True, True, False, True, True, True]]


def test_a_token_without_probability_is_never_drawn_not_even_by_rounding() -> None:
    """The last tokens of a vocabulary, where the sum may end below the number that was drawn."""
    logits = torch.full((ROWS, 1000), -torch.inf)
    logits[:, :3] = torch.rand(ROWS, 3, generator=torch.Generator().manual_seed(0))
    for sampler in (Sampler(1.0), Sampler(1.0, 0.99)):
        assert sampler.draw(logits, torch.arange(ROWS), torch.tensor([0])).tokens.max() <= 2


def test_at_temperature_0_the_highest_logit_is_taken() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    drawn = GREEDY.draw(logits, torch.zeros(50, dtype=torch.long), torch.tensor([0]))
    assert drawn.tokens.tolist() == logits.argmax(1).tolist()
    torch.testing.assert_close(drawn.logprobs, logits.log_softmax(1).amax(1))


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(1.0), Sampler(0.8, 0.9)])
def test_alone_in_transformers_batches_and_in_ours_an_answer_is_the_same(adapted: Any, sampler: Sampler) -> None:
    texts = [f"<s>{'1 + ' * (number % 5)}{number} =" for number in range(24)]
    ids, seeds = token_ids(load_tokenizer(str(BASE)), texts), [7919 * number for number in range(24)]
    usual: dict[str, Any] = {"max_new_tokens": 10, "end_tokens": [2], "sampler": sampler}
    batched = generate_tokens(adapted, ids, **usual, seeds=seeds, rows=5, pad_token_id=0)
    assert len(set(map(tuple, batched.tokens))) > 12
    assert [*map(len, batched.tokens)] == [*map(len, batched.logprobs)]
    alone = [
        generate_tokens(adapted, [prompt], **usual, seeds=[seed], rows=1, pad_token_id=0).tokens[0]
        for prompt, seed in list(zip(ids, seeds, strict=True))[:6]
    ]
    assert batched.tokens[:6] == alone
    settings = DecodeSettings(check_every=2, least_rows=2)
    ours = decode(merge(adapted), ids, **usual, seeds=seeds, rows=17, capture=False, settings=settings)
    assert ours.tokens == batched.tokens
    for mine, theirs in zip(ours.logprobs, batched.logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-3)


def test_without_seeds_torch_s_generator_decides(adapted: Any) -> None:
    def sampled(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        usual: dict[str, Any] = {"max_new_tokens": 4, "end_tokens": [], "pad_token_id": 0, "rows": 8}
        return generate_tokens(adapted, [[5, 6]] * 8, sampler=Sampler(2.0), **usual).tokens

    first = sampled(0)
    assert len(set(map(tuple, first))) > 1
    assert first == sampled(0) != sampled(1)
