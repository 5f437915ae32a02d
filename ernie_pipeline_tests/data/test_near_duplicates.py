import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable

import polars as pl
import pytest

from ernie_pipeline.data.dedup.near_duplicates import banding, drop_near_duplicates, near_duplicate_groups
from ernie_pipeline.data.filter.reasons import DROPPED
from ernie_pipeline.recipe.sections import NearDuplicates
from ernie_pipeline.utils.errors import PipelineError

DEFAULT = NearDuplicates()


def rows_of(questions: list[str]) -> pl.DataFrame:
    """Rows whose ids are in the order of their lines."""
    count = range(1, len(questions) + 1)
    ids = [f"{i:016x}" for i in count]
    return pl.DataFrame({"row_id": ids, "line": count, "question": questions, "expected_answer": "1"})


def sentence(draw: random.Random, words: int) -> list[str]:
    return [f"w{draw.randrange(50_000)}" for _ in range(words)]


def changed(words: list[str], places: list[int]) -> list[str]:
    return [f"{word}x" if place in places else word for place, word in enumerate(words)]


def exact(one: str, other: str) -> float:
    """The Jaccard similarity of the runs of five words."""
    first, second = (set(zip(*(text.split()[i:] for i in range(5)), strict=False)) for text in (one, other))
    return len(first & second) / len(first | second)


def test_one_word_more_at_the_end_is_a_near_duplicate() -> None:
    words = sentence(random.Random(0), 30)
    rows = rows_of([" ".join([*words, "now"]), "something else is asked here today", " ".join(words)])
    kept, dropped = drop_near_duplicates(rows, DEFAULT)
    assert kept["line"].to_list() == [1, 2]
    assert kept["group"].to_list() == rows["row_id"][:2].to_list()
    assert dropped.columns == list(DROPPED)
    assert dropped.select("line", "filter", "reason").rows() == [(3, "near_duplicate", "96 % alike with line 1")]


def test_keeping_all_keeps_a_group_together() -> None:
    words = sentence(random.Random(0), 30)
    rows = rows_of(["something else is asked here today", " ".join(words), " ".join([*words, "now"])])
    kept, dropped = drop_near_duplicates(rows.reverse(), NearDuplicates(keep="all"))
    assert dropped.is_empty()
    first, second, _ = rows["row_id"]
    assert dict(kept.select("line", "group").iter_rows()) == {1: first, 2: second, 3: second}
    assert kept["line"].to_list() == [3, 2, 1]


def test_switched_off_each_row_is_its_own_group() -> None:
    rows = rows_of(["a b c d e f g h"] * 2)
    kept, dropped = drop_near_duplicates(rows, NearDuplicates(enabled=False))
    assert kept["group"].to_list() == rows["row_id"].to_list()
    assert dropped.is_empty()


def test_a_chain_is_one_group_and_says_so() -> None:
    words = sentence(random.Random(1), 40)
    steps = [" ".join(words[i : i + 36]) for i in range(0, 5, 2)]
    assert exact(steps[0], steps[1]) >= 0.8 > exact(steps[0], steps[2])
    groups = near_duplicate_groups(rows_of(steps), DEFAULT)
    assert groups["group"].n_unique() == 1
    _, dropped = drop_near_duplicates(rows_of(steps), DEFAULT)
    assert dropped.sort("line")["reason"].to_list() == [
        "88 % alike with line 1",
        "88 % alike with line 2, in a chain of such that begins with line 1",
    ]


def test_the_reason_names_the_row_that_stays_where_it_can() -> None:
    words = sentence(random.Random(3), 60)
    texts = [" ".join(words[:length]) for length in (60, 55, 54)]
    assert exact(texts[1], texts[2]) > exact(texts[0], texts[2]) >= 0.8
    _, dropped = drop_near_duplicates(rows_of(texts), DEFAULT)
    assert dropped.sort("line")["reason"].to_list() == ["91 % alike with line 1", "89 % alike with line 1"]


@pytest.mark.parametrize(("last", "kept"), [(29, 1), (15, 2)], ids=["0.93", "0.68"])
def test_the_threshold_decides(last: int, kept: int) -> None:
    words = sentence(random.Random(2), 30)
    rows = rows_of([" ".join(words), " ".join(changed(words, [last]))])
    assert drop_near_duplicates(rows, DEFAULT)[0].height == kept


def test_short_questions_are_alike_only_when_all_their_words_are() -> None:
    rows = rows_of(["What is 12 + 35?", "What is 12 + 36?", "what is $12+35$", "is 12+35 what", "?", "!"])
    groups = near_duplicate_groups(rows, DEFAULT)
    assert groups["row_id"].to_list() == [rows["row_id"][0], rows["row_id"][2]]


def test_nearly_every_planted_pair_is_found() -> None:
    """500 pairs of similarity 0.8 or a little more: at the threshold itself one in a thousand may be missed."""
    draw = random.Random(5)
    questions: list[str] = []
    while len(questions) < 1000:
        words = sentence(draw, draw.randrange(45, 60))
        questions += [" ".join(words), " ".join(changed(words, [len(words) // 2]))]
    similar = [exact(*questions[i : i + 2]) for i in range(0, 1000, 2)]
    assert 0.78 < min(similar) < 0.8 < max(similar) < 0.85
    found = near_duplicate_groups(rows_of(questions), DEFAULT)
    assert found["group"].n_unique() >= 0.99 * sum(similarity >= 0.8 for similarity in similar)
    assert found["similarity"].drop_nulls().min() >= 0.8


def test_a_pair_at_the_threshold_is_missed_less_than_once_in_a_thousand() -> None:
    for threshold in (0.1, 0.5, 0.8, 0.95, 1.0):
        bands, rows = banding(threshold, 128)
        assert bands * rows <= 128
        assert (1 - threshold**rows) ** bands <= 0.001
    with pytest.raises(PipelineError, match=r"permutations = 16 would miss .* 20% alike; set it to 31 or more"):
        banding(0.2, 16)
    assert banding(0.2, 31) == (31, 1)


@pytest.mark.parametrize(
    "template",
    [
        lambda i: f"What is {i // 100} + {i % 100}?",
        lambda i: " ".join([*map(str, range(1000, 1020)), f"n{i}", *map(str, range(2000, 2020))]),
        lambda i: " ".join([*map(str, range(1000, 1010)), f"n{i}", *map(str, range(2000, 2012))]),
    ],
    ids=["short", "all alike but one word", "not alike for one word"],
)
def test_many_questions_of_one_template_do_not_take_long(template: Callable[[int], str]) -> None:
    start = time.process_time()
    groups = near_duplicate_groups(rows_of([template(i) for i in range(10_000)]), NearDuplicates(threshold=0.75))
    assert time.process_time() - start < 10  # comparing all pairs takes minutes
    assert groups.height == (10_000 if len(template(1).split()) == 41 else 0)


IN_A_PROCESS = """
import json, random, sys
import polars as pl
from ernie_pipeline.data.dedup.near_duplicates import near_duplicate_groups
from ernie_pipeline.recipe.sections import NearDuplicates
rows = pl.read_json(sys.stdin.buffer)
print(json.dumps(near_duplicate_groups(rows, NearDuplicates(threshold=0.5)).rows()))
"""


def test_neither_order_nor_threads_matter() -> None:
    draw = random.Random(7)
    centres = [sentence(draw, 25) for _ in range(40)]
    texts = [" ".join(changed(draw.choice(centres), draw.sample(range(25), 2))) for _ in range(400)]
    rows = rows_of(list(dict.fromkeys(texts)))
    expected = near_duplicate_groups(rows, NearDuplicates(threshold=0.5))
    assert expected["group"].n_unique() > 10
    assert near_duplicate_groups(rows.sample(fraction=1, shuffle=True, seed=1), NearDuplicates(threshold=0.5)).equals(
        expected
    )
    for threads in ("1", "2"):
        environment = {**os.environ, "POLARS_MAX_THREADS": threads, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", IN_A_PROCESS]
        done = subprocess.run(
            command, input=rows.write_json().encode(), env=environment, capture_output=True, check=True
        )
        assert [tuple(row) for row in json.loads(done.stdout)] == expected.rows()


def test_no_rows_have_no_groups() -> None:
    rows = rows_of([""]).clear()
    kept, dropped = drop_near_duplicates(rows, DEFAULT)
    assert kept.is_empty()
    assert dropped.is_empty()
    assert kept.schema["group"] == pl.String
