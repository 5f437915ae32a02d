"""The price of a GPU hour and the cap of a refresh, as the environment has them."""

import pytest

from ernie_pipeline.recipe.budget import CAP, PRICE, Budget, Price
from ernie_pipeline.utils.errors import PipelineError


def budget(monkeypatch: pytest.MonkeyPatch, cap: str = "", price: str = "") -> Budget:
    monkeypatch.setenv(CAP, cap)
    monkeypatch.setenv(PRICE, price)
    return Budget.from_environment()


@pytest.mark.parametrize(
    ("cap", "seconds"), [("2h", 7200), ("90min", 5400), ("90 m", 5400), ("7200s", 7200), (" 1.5h ", 5400)]
)
def test_a_cap_of_time(monkeypatch: pytest.MonkeyPatch, cap: str, seconds: float) -> None:
    found = budget(monkeypatch, cap)
    assert (found.cap_s, found.cap_money, found.capped) == (seconds, None, True)
    assert not found.passed_by(seconds, 0)
    assert found.passed_by(seconds + 1, 0)


def test_a_cap_of_money_counts_gpu_seconds_at_the_price(monkeypatch: pytest.MonkeyPatch) -> None:
    found = budget(monkeypatch, "10 usd", "2.50 USD")
    assert (found.price, found.cap_money) == (Price(2.5, "USD"), 10)
    assert not found.passed_by(10**9, 4 * 3600)
    assert found.passed_by(0, 4 * 3600 + 1)


def test_without_a_cap_nothing_passes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = budget(monkeypatch, price="2.50 USD")
    assert not found.capped
    assert not found.passed_by(10**9, 10**9)


HUGE = "9" * 400


@pytest.mark.parametrize(
    "cap", ["2", "2d", "-2h", "0s", "0 USD", "inf h", "nan", "h", "2h 30min", "1e3 s", HUGE + "h", HUGE + " USD"]
)
def test_what_is_no_amount_is_told(monkeypatch: pytest.MonkeyPatch, cap: str) -> None:
    with pytest.raises(PipelineError, match="is no amount of GPU time or money above 0; write it as"):
        budget(monkeypatch, cap, "2.50 USD")


@pytest.mark.parametrize("price", ["2.5", "USD", "2.5 dollars", "-1 USD", "$2", "2 min", HUGE + " USD"])
def test_what_is_no_price_is_told(monkeypatch: pytest.MonkeyPatch, price: str) -> None:
    with pytest.raises(PipelineError, match="is no price of a GPU hour; write an amount and a currency"):
        budget(monkeypatch, price=price)


def test_money_needs_a_price_in_its_currency(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match="which is not set"):
        budget(monkeypatch, "10 USD")
    with pytest.raises(PipelineError, match=r'which is in EUR; set it, as in "2\.50 USD"'):
        budget(monkeypatch, "10 USD", "2 EUR")
    with pytest.raises(PipelineError, match="so it would stop nothing; correct the price"):
        budget(monkeypatch, "10 USD", "0 USD")
    assert budget(monkeypatch, "2h", "0 USD").capped
