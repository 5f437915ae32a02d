"""Amounts of GPU time, and of money where it has a price, in words."""

from ernie_pipeline.recipe.budget import Budget, Price

Range = tuple[float, float]
"""The least and the most."""


def spent_words(seconds: float, gpu_seconds: float, price: Price | None) -> str:
    """ "412 GPU s (0.29 USD)"; of jobs on a CPU, "11 s on the CPU"."""
    return range_words((seconds, seconds), (gpu_seconds, gpu_seconds), price)


def range_words(seconds: Range, gpu_seconds: Range, price: Price | None) -> str:
    """The same of a range: "200 to 400 GPU s (0.14 to 0.28 USD)"."""
    if not gpu_seconds[1]:
        return f"{_times(seconds)} on the CPU"
    money = f" ({_span(*(f'{price.of(each):.2f}' for each in gpu_seconds))} {price.currency})" if price else ""
    return f"{_span(*map(_figure, gpu_seconds))} GPU s{money}"


def cap_words(budget: Budget, seconds: float, gpu_seconds: float) -> str:
    """An amount in what the cap is in: "3.1 USD", "7210 s"."""
    if budget.cap_money is not None and budget.price is not None:
        return f"{budget.price.of(gpu_seconds):.2f} {budget.price.currency}"
    return f"{_figure(seconds)} s"


def _times(seconds: Range) -> str:
    return f"{_span(*map(_figure, seconds))} s"


def _span(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
