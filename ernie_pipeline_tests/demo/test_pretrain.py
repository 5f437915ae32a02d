import itertools
import json
import re
from typing import Any

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.corpus import texts
from ernie_pipeline.demo.pretrain import EXCLUDED_ROWS, EXCLUDED_SEED, excluded_questions, text_hash
from ernie_pipeline.demo.problems import expressions
from ernie_pipeline.recipe.load import load_recipe

COUNT = 20_000


@pytest.fixture(scope="module")
def questions() -> list[str]:
    return excluded_questions()


@pytest.fixture(scope="module")
def excluded(questions: list[str]) -> frozenset[str]:
    return frozenset().union(*(expressions(question) for question in questions))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads((BASE / "pretraining.json").read_text())


def bare(text: str) -> str:
    """Without LaTeX and the spaces around operators, and every lone letter the same: as one would search by hand."""
    lettered = re.sub(r"(?<![a-z])[a-z](?![a-z])", "x", text.lower())
    plain = re.sub(r"\\d?frac\{(\d+)\}\{(\d+)\}", r"\1/\2", lettered)
    return re.sub(r" ?([-+*/=,]) ?", r"\1", plain)


def cores(question: str) -> set[str]:
    """A question's problem, and its other order where two operands may change places."""
    core = max(re.findall(r"[\dx+*/,=-]+", bare(question)), key=len).strip("=,")
    pair = re.fullmatch(r"(\d+)([+*,])(\d+)", core)
    return {core, f"{pair[3]}{pair[2]}{pair[1]}"} if pair else {core}


def found_by_hand(questions: list[str], corpus: list[str]) -> set[str]:
    """The problems that stand in a text, whatever stands before and after, but as a factor of something larger."""
    sought = {core for question in questions for core in cores(question)}
    found = set()
    for text in corpus:
        for run in re.findall(r"[\dx+*/,=-]+", bare(text)):
            units = ["", *re.findall(r"\d+|\D", run), ""]
            for start, end in itertools.combinations(range(1, len(units)), 2):
                if end - start >= 3 and units[start - 1] not in ("*", "/") and units[end] not in ("*", "/"):
                    found |= {"".join(units[start:end])} & sought
    return found


def test_no_problem_of_the_demo_stands_in_the_text(questions: list[str], excluded: frozenset[str]) -> None:
    corpus = list(itertools.islice(texts(seed=7, excluded=excluded), COUNT))
    assert all(excluded.isdisjoint(expressions(text)) for text in corpus)
    assert found_by_hand(questions, corpus) == set()


def test_without_the_exclusion_many_would(questions: list[str], excluded: frozenset[str]) -> None:
    corpus = list(itertools.islice(texts(seed=7, excluded=frozenset()), COUNT))
    assert sum(not excluded.isdisjoint(expressions(text)) for text in corpus) > 0.05 * COUNT
    assert len(found_by_hand(questions, corpus)) > 100


def test_the_text_is_the_same_for_the_same_seed_and_worked_right() -> None:
    corpus = list(itertools.islice(texts(seed=3, excluded=frozenset()), 2000))
    assert corpus == list(itertools.islice(texts(seed=3, excluded=frozenset()), 2000))
    assert corpus != list(itertools.islice(texts(seed=4, excluded=frozenset()), 2000))
    sums = [
        match for text in corpus if (match := re.search(r"(?<![-+*] )(?<![-\d])(\d+) ([+*-]) (\d+) = (-?\d+)$", text))
    ]
    assert len(sums) > 100
    for match in sums:
        a, b, stated = int(match[1]), int(match[3]), int(match[4])
        assert {"+": a + b, "-": a - b, "*": a * b}[match[2]] == stated, match[0]


def test_the_excluded_rows_are_the_demo_recipes(report: dict[str, Any], questions: list[str]) -> None:
    source = load_recipe("demo").source
    assert (source.kind, source.rows, source.seed) == ("demo", EXCLUDED_ROWS, EXCLUDED_SEED)
    assert report["excluded_rows"] == source.rows == len(questions)


def test_the_shipped_checkpoint_was_trained_on_the_text_that_is_made_today(
    report: dict[str, Any], excluded: frozenset[str]
) -> None:
    assert report["excluded_expressions"] == len(excluded)
    assert report["text_sha256"] == text_hash(report["seed"], excluded)


def test_the_shipped_checkpoint_is_a_small_ernie(report: dict[str, Any]) -> None:
    from safetensors import safe_open

    config = json.loads((BASE / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["Ernie4_5_MoeForCausalLM"], "ernie4_5_moe")
    assert config["moe_num_experts"] > config["moe_k"] >= 2
    assert (config["moe_num_shared_experts"], config["moe_layer_start_index"]) == (1, 1)  # shared experts, dense layer
    weights = BASE / "model.safetensors"
    assert weights.stat().st_size <= 16_000_000
    with safe_open(weights, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parameters = sum(tensor.numel() for tensor in tensors.values())
    assert 3_000_000 <= parameters <= 8_000_000
    assert report["parameters"] == parameters
    assert all(tensor.any() for name, tensor in tensors.items() if name.endswith("mlp.gate.weight"))


def test_digits_are_tokens_of_their_own() -> None:
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids

    tokenizer = load_tokenizer(str(BASE))
    assert [token for token in tokenizer.get_vocab() if re.search("[0-9]", token) and len(token) > 1] == []
    for number in ("0", "12", "1234567890"):
        (ids,) = token_ids(tokenizer, [number])
        assert [tokenizer.decode([token]) for token in ids] == list(number)
