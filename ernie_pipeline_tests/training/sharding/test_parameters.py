"""Ranks that step a shard each end where an optimizer that has all of it ends, and their checkpoints are its own."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from ernie_pipeline.training.ranks import Ranks, join_ranks
from ernie_pipeline.training.sharding import parameters as sharded_parameters
from ernie_pipeline.training.sharding.layout import ALIGNED
from ernie_pipeline.training.sharding.parameters import ShardedParameters
from ernie_pipeline.training.sharding.state import OptimizerState, leaves_of
from ernie_pipeline_tests.training.processes import Report, run_ranks

SHAPES = [(50, 100), (3,), (4, 3 * ALIGNED), (7,), (9 * ALIGNED + 100,), (33, 200), (ALIGNED,)]
"""As backend `peft` has them: some are cut, and of some an optimizer of 8 bits keeps the state in 32."""
ONE_VECTOR = [(sum(torch.Size(shape).numel() for shape in SHAPES),)]
"""As backend `grouped` has it."""
UNUSED, OF_ONE_RANK = 3, 5
"""The parameters that have a gradient nowhere, and on the second rank alone."""
FREE, CLIPPED = 1e6, 0.5
"""Largest norms: under the first no gradient is scaled, and two ranks' sum is the same to the last bit."""


class Trained(NamedTuple):
    """What a rank came to; `state` is the whole one, on the first."""

    values: list[torch.Tensor]
    state: OptimizerState | None
    norms: list[float]
    own_bytes: int


def gradients(shapes: list[Any], step: int, rank: int) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(10 * step + rank)
    each: list[torch.Tensor | None] = [torch.randn(shape, generator=generator) for shape in shapes]
    if len(shapes) > 1:
        each[UNUSED] = None
        each[OF_ONE_RANK] = each[OF_ONE_RANK] if rank == 1 else None
    return each


def mean(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return other if other is None else other / 2 if one is None else (one + other) / 2


def optimizer_over(parameters: list[nn.Parameter], kind: str) -> torch.optim.Optimizer:
    if kind == "adamw_torch":
        return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    from bitsandbytes.optim import AdamW

    return AdamW(parameters, lr=1e-2, weight_decay=0.1, optim_bits=8)


def train(
    ranks: Ranks, shapes: list[Any], kind: str, most: float, steps: range, after: Trained | None = None
) -> Trained:
    """Steps with the gradients of two ranks: each its own, or one their mean. `after`: what it goes on from."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    sharded = ShardedParameters(parameters, ranks)
    optimizer, norms = optimizer_over(sharded.own, kind), list[float]()
    sharded.attach(optimizer)
    if after and after.state:
        for parameter, value in zip(parameters, after.values, strict=True):
            parameter.data.copy_(value)
        optimizer.load_state_dict(sharded.own_state(after.state))
    for step in steps:
        one, other = (gradients(shapes, step, rank) for rank in (0, 1))
        own = (one, other)[ranks.rank] if ranks.size > 1 else [*map(mean, one, other)]
        for parameter, gradient in zip(parameters, own, strict=True):
            parameter.grad = gradient
        sharded.reduce_gradients()
        norms.append(sharded.clip_gradients(most).item())
        optimizer.step()
    kept = [value for state in optimizer.state.values() for path, value in leaves_of(state).items() if grows(path)]
    values = [parameter.detach() for parameter in parameters]
    return Trained(values, sharded.whole_state(optimizer), norms, sum(tensor.nbytes for tensor in kept))


def grows(path: tuple[str, ...]) -> bool:
    """With the parameter; the number of steps and the table of 8 bits do not."""
    return path[-1] in {"exp_avg", "exp_avg_sq", "state1", "state2", "absmax1", "absmax2"}


def on_two_ranks(folder: Path, *given: Any) -> list[Trained]:
    def work(report: Report) -> None:
        with join_ranks() as ranks:
            torch.save(tuple(train(ranks, *given)), folder / f"{ranks.rank}.pt")

    assert [ended.code for ended in run_ranks(2, work)] == [0, 0]
    return [Trained(*torch.load(folder / f"{rank}.pt")) for rank in (0, 1)]


def assert_same(found: OptimizerState, wanted: OptimizerState, within: float = 0.0) -> None:
    assert found["param_groups"] == wanted["param_groups"]
    assert found["state"].keys() == wanted["state"].keys()
    for number, state in wanted["state"].items():
        leaves = leaves_of(found["state"][number])
        assert leaves.keys() == leaves_of(state).keys()
        for path, value in leaves_of(state).items():
            assert type(leaves[path]) is type(value)
            if isinstance(value, torch.Tensor):
                assert leaves[path].shape == value.shape
                assert torch.allclose(leaves[path], value, rtol=within, atol=0), path
            else:
                assert leaves[path] == value


@pytest.mark.parametrize("kind", ["adamw_torch", "adamw_8bit"])
@pytest.mark.parametrize("shapes", [SHAPES, ONE_VECTOR], ids=["many", "one vector"])
def test_two_ranks_come_to_the_values_and_the_state_of_one_optimizer_and_keep_half_of_it_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: list[Any], kind: str
) -> None:
    """And go on from a checkpoint as if they had not stopped, from each other's too."""
    monkeypatch.setattr(sharded_parameters, "BUCKET", 20_000)  # so that there are several
    first, second = on_two_ranks(tmp_path, shapes, kind, FREE, range(3))
    one = train(Ranks(), shapes, kind, FREE, range(3))
    assert one.state is not None
    assert first.state is not None
    assert second.state is None
    for rank in (first, second):
        assert all(torch.equal(found, wanted) for found, wanted in zip(rank.values, one.values, strict=True))
        assert rank.norms == pytest.approx(one.norms, rel=1e-5)
        assert rank.own_bytes < 0.6 * one.own_bytes
    assert first.own_bytes + second.own_bytes == one.own_bytes
    assert_same(first.state, one.state)
    assert len(shapes) == 1 or UNUSED not in first.state["state"]

    to_the_end = train(Ranks(), shapes, kind, FREE, range(6))
    again = on_two_ranks(tmp_path, shapes, kind, FREE, range(3, 6), first)
    for ended in (*again, train(Ranks(), shapes, kind, FREE, range(3, 6), first)):
        assert all(torch.equal(found, wanted) for found, wanted in zip(ended.values, to_the_end.values, strict=True))


def test_gradients_are_clipped_by_the_norm_over_all_shards(tmp_path: Path) -> None:
    one = train(Ranks(), SHAPES, "adamw_torch", CLIPPED, range(3))
    assert min(one.norms) > 100 * CLIPPED
    for rank in on_two_ranks(tmp_path, SHAPES, "adamw_torch", CLIPPED, range(3)):
        assert rank.norms == pytest.approx(one.norms, rel=1e-5)
        for found, wanted in zip(rank.values, one.values, strict=True):
            assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_step_without_a_gradient_moves_nothing_on_no_rank(tmp_path: Path) -> None:
    def work(report: Report) -> Any:
        with join_ranks() as ranks:
            parameter = nn.Parameter(torch.ones(3 * ALIGNED))
            sharded = ShardedParameters([parameter], ranks)
            optimizer = torch.optim.AdamW(sharded.own, lr=0.1)
            sharded.attach(optimizer)
            seen = []
            for learns in (True, False):
                parameter.grad = torch.full_like(parameter, 2.0 * ranks.rank)
                if learns:
                    sharded.reduce_gradients()
                else:
                    sharded.drop_gradients()
                norm = sharded.clip_gradients(1.0).item()
                optimizer.step()
                seen.append((norm, parameter.min().item(), parameter.max().item()))
            return seen

    first, second = (ended.result for ended in run_ranks(2, work))
    assert first == second
    (norm, low, high), (none, *still) = first
    assert norm == pytest.approx((3 * ALIGNED) ** 0.5)
    assert low == high == pytest.approx(0.899, abs=1e-3)
    assert (none, still) == (0.0, [low, high])
