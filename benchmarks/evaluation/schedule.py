"""What a schedule of slots loses on answers of unlike length, in plain Python: how often to look, and when to prefill.

    python benchmarks/evaluation/schedule.py [--rows 400] [--prompts 8000] [--samples 4] [--step 15] ...

Lengths are log-normal. For each number of steps between two looks: the share of row-steps that made a token of an
answer (occupancy), and the share of the full batch's rate, with what looks, copies, prefills and the end cost. Two ways
to prefill: `ahead`, as `models/generation/prefill.py` does (as many prompts in a pass as it may have, the samples of
one copied), and `when free`: a pass over the prompts that slots are free for, once the row-steps lost to free slots
since the last one are as many as it stops (more often, passes cost more; more seldom, free slots do).
"""

import argparse
import random
from collections import deque
from typing import NamedTuple


class Costs(NamedTuple):
    """Milliseconds."""

    step: float
    """Of all rows."""
    least_step: float
    """Of a single row: what reading the weights takes."""
    look: float
    """What the device waits for at a look that finds a row finished: its answer is fetched, its slot filled."""
    launch: float
    """The least that a prefill takes."""
    token: float
    """What a prefill takes for each token, where there are many."""


class Lost(NamedTuple):
    """What came out."""

    occupancy: float
    rate: float
    """Of the full batch's."""
    prefill: float
    """Share of the time that went into prefills."""


def simulate(
    lengths: list[int], rows: int, samples: int, costs: Costs, check_every: int, *, ahead: int | None, prompt: int
) -> Lost:
    """Answers of `lengths` tokens in `rows` slots. `ahead`: tokens of a prefill; None: only when slots are free."""
    waiting, left = deque(lengths), [0] * rows
    ready, idle, row_steps, prefilling, other = 0, 0.0, 0, 0.0, 0.0
    most = rows
    while waiting or any(left):
        free = [row for row in range(rows) if left[row] == 0]
        stops = max(costs.launch, costs.token * prompt * len(free) / samples) / costs.step * rows
        if free and waiting and (ahead is not None or idle >= stops or len(free) == rows):
            taken = free[: len(waiting)]
            if ahead is None:
                prefilling += max(costs.launch, costs.token * prompt * -(-len(taken) // samples))
                idle = 0.0
            while ahead is not None and ready < len(taken):
                prompts = min(ahead // prompt, -(-len(waiting) // samples))
                ready += prompts * samples
                prefilling += max(costs.launch, costs.token * prompt * prompts)
            ready -= len(taken) if ahead is not None else 0
            for row in taken:
                left[row] = waiting.popleft()
            other += costs.look
        elif free and len(free) < rows:
            other += costs.look / 4
        live = [each for each in left if each]
        if not waiting:  # the batch is halved
            while -(-rows // 2) >= max(len(live), 8) and rows > 8:
                rows = -(-rows // 2)
            left = live + [0] * (rows - len(live))
        steps = min(check_every, max(left))
        row_steps += steps * rows
        idle += steps * (rows - len(live))
        other += steps * (costs.least_step + (costs.step - costs.least_step) * rows / most)
        left = [max(0, each - steps) for each in left]
    useful = sum(lengths)
    return Lost(
        useful / row_steps, useful / most * costs.step / (prefilling + other), prefilling / (prefilling + other)
    )


def log_normal(number: int, median: float, sigma: float, most: int) -> list[int]:
    """Lengths in tokens."""
    rng = random.Random(0)
    return [max(1, min(most, round(median * rng.lognormvariate(0, sigma)))) for _ in range(number)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("rows", 400), ("prompts", 8000), ("samples", 4), ("prompt-tokens", 115), ("ahead", 8192)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    for name, value in (("median", 250.0), ("sigma", 0.8), ("step", 15.0), ("least-step", 10.0), ("look", 1.5)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--launch", type=float, default=100.0)
    parser.add_argument("--token", type=float, default=0.02)
    parser.add_argument("--most", type=int, default=2048)
    o = parser.parse_args()
    costs = Costs(o.step, o.least_step, o.look, o.launch, o.token)
    lengths = log_normal(o.prompts * o.samples, o.median, o.sigma, o.most)
    print(f"{len(lengths)} answers of {sum(lengths) / len(lengths):.0f} tokens on average, at most {max(lengths)}")
    for name, ahead in (("ahead", o.ahead), ("when free", None)):
        for every in (1, 2, 4, 8, 16, 32, 64):
            lost = simulate(lengths, o.rows, o.samples, costs, every, ahead=ahead, prompt=o.prompt_tokens)
            print(
                f"{name:9}  look every {every:2}: occupancy {lost.occupancy:.3f}, "
                f"{lost.rate:.1%} of the full batch's rate, prefill {lost.prefill:.1%}"
            )


if __name__ == "__main__":
    main()
