"""A prompt costs a model once: what it was answered is kept by it, its seed and its set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.generation.kept import Answered, answer_rows
from ernie_pipeline.models.peft.backend import PeftModel4bit
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.store.row_cache import KeptRows, open_rows, read_rows
from ernie_pipeline_tests.models.conftest import new_adapted

PROMPTS = [[5 + n, 30, 31 + n % 3] for n in range(12)]
GREEDY, DRAWN = Sampling(4), Sampling(4, temperature=1.5)

Ask = Callable[..., Answered]


class Counted(PeftModel4bit):
    """Counts the prompts that the model is asked, and can be made to fail after so many answers."""

    asked = 0
    fails_after: int | None = None

    def generate(self, prompts: Sequence[Sequence[int]], *args: Any, **given: Any) -> Any:
        self.asked += len(prompts)
        hear, left = given.pop("on_answer"), self.fails_after

        def on_answer(index: int, tokens: list[int]) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left = None if left is None else left - 1
            hear(index, tokens)

        return super().generate(prompts, *args, **given, on_answer=on_answer)


@pytest.fixture(scope="module")
def module() -> Any:
    return new_adapted()


@pytest.fixture
def model(short_spec: ModelSpec, module: Any) -> Counted:
    return Counted(short_spec, "cpu", module)


@pytest.fixture
def ask(model: Counted, tmp_path: Path) -> Ask:
    @contextmanager
    def opened() -> Iterator[Any]:
        with open_rows(KeptRows(folder=tmp_path / "set")) as kept:
            yield kept

    def answered(prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY, **given: Any) -> Answered:
        with opened() as kept:
            return answer_rows(model, prompts, sampling, kept, rows=4, **given)

    return answered


def test_only_what_was_never_asked_is_asked_and_all_come_back_in_order(ask: Ask, model: Counted) -> None:
    plain = model.generate(PROMPTS, GREEDY, rows=4, on_answer=lambda index, tokens: None).tokens
    model.asked = 0
    first = ask(PROMPTS[:8])
    assert first[:3] == (plain[:8], 8, 0)
    more = ask(list(reversed(PROMPTS)))
    assert more[:3] == (list(reversed(plain)), 4, 8)
    fewer = ask(PROMPTS[3:5])
    assert fewer == (plain[3:5], 0, 2, 0, "kept answers")
    assert (first.generated, more.generated) == (sum(map(len, plain[:8])), sum(map(len, plain[8:])))
    assert model.asked == 12
    assert more.how == first.how == "4-bit"


def test_equal_prompts_are_asked_once(ask: Ask, model: Counted) -> None:
    found = ask([PROMPTS[0]] * 5)
    assert model.asked == 1
    assert found.tokens == [found.tokens[0]] * 5
    assert (found.sampled, found.reused) == (1, 4)


def test_each_seed_is_an_answer_of_its_own(ask: Ask, model: Counted) -> None:
    one = ask([PROMPTS[0]] * 6, DRAWN, seeds=[1, 2, 3, 4, 5, 6])
    assert len(set(map(tuple, one.tokens))) > 3
    two = ask([PROMPTS[0]] * 8, DRAWN, seeds=[8, 7, 6, 5, 4, 3, 2, 1])
    assert two.tokens[2:] == one.tokens[::-1]
    assert (two.sampled, two.reused, model.asked) == (2, 6, 8)
    with pytest.raises(ValueError, match="seed"):
        ask(PROMPTS, DRAWN)


def test_what_was_stopped_goes_on_where_it_was(ask: Ask, model: Counted, tmp_path: Path) -> None:
    model.fails_after = 5
    with pytest.raises(KeyboardInterrupt):
        ask(PROMPTS)
    assert len(read_rows(tmp_path / "set")) == 5
    model.fails_after = None
    again = ask(PROMPTS)
    assert (again.sampled, again.reused) == (7, 5)
    assert again.tokens == model.generate(PROMPTS, GREEDY, rows=4, on_answer=lambda index, tokens: None).tokens
