"""What GPU time costs, and how much of it a refresh may take: settings from the environment, in no fingerprint."""

import math
import os
import re
from dataclasses import dataclass

from ernie_pipeline.utils.errors import PipelineError

PRICE, CAP = "ERNIE_PIPELINE_GPU_PRICE", "ERNIE_PIPELINE_BUDGET"
AMOUNT = r"([0-9]+(?:\.[0-9]+)?)"
MONEY = re.compile(rf"{AMOUNT} ?([A-Za-z]{{3}})")
TIME = re.compile(rf"{AMOUNT} ?(s|min|m|h)")
UNIT_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
HOUR_S = 3600.0


@dataclass(frozen=True)
class Price:
    """What an hour of one GPU costs, in a currency of three letters."""

    an_hour: float
    currency: str

    def of(self, gpu_seconds: float) -> float:
        """The money that so many GPU seconds cost."""
        return gpu_seconds / HOUR_S * self.an_hour


@dataclass(frozen=True)
class Budget:
    """The price of a GPU hour, None where nobody said, and the cap of a refresh, `text` as it was written.

    A cap of time counts the seconds during which jobs ran, times the GPUs that each had; on a CPU, times 1. A cap of
    money counts GPU seconds at the price: on a CPU nothing costs money. At most one of `cap_s` and `cap_money` is set.
    """

    price: Price | None = None
    cap_s: float | None = None
    cap_money: float | None = None
    text: str = ""

    @classmethod
    def from_environment(cls) -> "Budget":
        """ERNIE_PIPELINE_GPU_PRICE ("2.50 USD" an hour) and ERNIE_PIPELINE_BUDGET ("2h", "7200s", "10 USD").

        Raises `PipelineError` for what cannot be read, and for a cap of money without a price in its currency.
        """
        price, text = _price(os.environ.get(PRICE, "").strip()), os.environ.get(CAP, "").strip()
        if not text:
            return cls(price)
        if (time := TIME.fullmatch(text)) and 0 < float(time[1]) * UNIT_S[time[2]] < math.inf:
            return cls(price, cap_s=float(time[1]) * UNIT_S[time[2]], text=text)
        money = MONEY.fullmatch(text)
        if time or not money or not 0 < float(money[1]) < math.inf:
            raise PipelineError(
                f'{CAP} = {text!r} is no amount of GPU time or money above 0; write it as "2h", "90min", "7200s" or '
                '"10 USD"'
            )
        currency = money[2].upper()
        if price is not None and not price.an_hour:
            raise PipelineError(
                f"{CAP} = {text!r} is money, and a GPU hour costs none by {PRICE} = {os.environ[PRICE]!r}, so it would "
                'stop nothing; correct the price, or give the budget in time ("2h")'
            )
        if price is None or price.currency != currency:
            said = "which is not set" if price is None else f"which is in {price.currency}"
            raise PipelineError(
                f'{CAP} = {text!r} is money, and what a GPU hour costs stands in {PRICE}, {said}; set it, as in "2.50 '
                f'{currency}", or give the budget in time ("2h")'
            )
        return cls(price, cap_money=float(money[1]), text=text)

    @property
    def capped(self) -> bool:
        """Whether there is a cap."""
        return bool(self.text)

    def passed_by(self, seconds: float, gpu_seconds: float) -> bool:
        """Whether an amount is above the cap: `seconds` of jobs times their GPUs, `gpu_seconds` those on GPUs alone."""
        if self.cap_money is not None and self.price is not None:
            return self.price.of(gpu_seconds) > self.cap_money
        return self.cap_s is not None and seconds > self.cap_s


def _price(text: str) -> Price | None:
    if not text:
        return None
    money = MONEY.fullmatch(text)
    if not money or TIME.fullmatch(text) or not math.isfinite(float(money[1])):
        raise PipelineError(
            f'{PRICE} = {text!r} is no price of a GPU hour; write an amount and a currency, as in "2.50 USD"'
        )
    return Price(float(money[1]), money[2].upper())
