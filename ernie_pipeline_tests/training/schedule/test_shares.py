"""How a step's samples are shared among processes."""

import random

import pytest

from ernie_pipeline.training.schedule.shares import share_of


@pytest.mark.parametrize("ranks", [1, 2, 3, 11])
def test_every_sample_of_a_step_is_some_rank_s_and_their_shares_are_alike(ranks: int) -> None:
    lengths, step = [random.Random(i).randint(30, 300) for i in range(100)], list(range(40, 50))
    shares = [share_of(step, lengths, rank, ranks) for rank in range(ranks)]
    assert sorted(sample for share in shares for sample in share) == step
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("ranks", [2, 4])
def test_no_rank_has_much_more_to_compute_than_the_others(ranks: int) -> None:
    lengths = [round(random.Random(i).lognormvariate(4.87, 0.5)) for i in range(112)]
    tokens = [sum(lengths[sample] for sample in share_of(range(112), lengths, rank, ranks)) for rank in range(ranks)]
    assert max(tokens) - min(tokens) < 0.01 * sum(tokens) / ranks
    dealt = sorted(lengths, reverse=True)
    assert sum(dealt[0::ranks]) - sum(dealt[1::ranks]) > max(tokens) - min(tokens)
