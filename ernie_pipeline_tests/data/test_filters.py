# ruff: noqa: RUF001 (letters of many languages)
import re
import subprocess
import sys

import polars as pl
import pytest

from ernie_pipeline.data.dedup.exact import alike_rows
from ernie_pipeline.data.filter.filters import FILTERS, GROUP_FILTERS, Filter, apply_filters
from ernie_pipeline.data.filter.reasons import DROPPED
from ernie_pipeline.data.normalize.answers import with_answer
from ernie_pipeline.data.read.row_schema import ROWS
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.recipe.sections import Filters

QUESTION = "What is 1 + 1, as a number?"
BOUNDS = Filters(min_question_chars=10, max_question_chars=40, max_answer_chars=5)
SWITCHES = [name for name, field in Filters.model_fields.items() if field.annotation is bool]
LATER = {"unverifiable_answer"}  # a step of its own: verifiable.py


def judged(pairs: list[tuple[str | None, str | None]], row_ids: list[int] | None = None) -> pl.DataFrame:
    """(question, answer) pairs as the filters get them; ids are the numbers given, else the lines."""
    rows = [
        (line, [{"role": "user", "content": question or ""}], question, answer)
        for line, (question, answer) in enumerate(pairs, start=1)
    ]
    ids = pl.Series("row_id", [f"{i:016x}" for i in row_ids or range(1, len(rows) + 1)], pl.String)
    return with_answer(pl.DataFrame(rows, schema=ROWS, orient="row")).with_columns(ids)


def control(text: str) -> str:
    return text.translate({ord("¶"): "\n", ord("␉"): "\t", ord("␌"): "\f"})


def examples(rule: Filter) -> list[tuple[str, str, list[tuple[str | None, str | None]]]]:
    """(docstring line, "drops" or "keeps", rows) of a filter's examples."""
    found = []
    for line in re.sub(r"\\\n", "", rule.__doc__ or "").splitlines():
        if match := re.match(r"\s*(drops|keeps):(.*)", line):
            rows = [row.partition("=>") for row in match[2].split("||")]
            pairs = [(control(q.strip()), control(a.strip()) if arrow else "7") for q, arrow, a in rows]
            found.append((line.strip(), match[1], pairs))
    return found


def fired(rule: Filter, pairs: list[tuple[str | None, str | None]], filters: Filters) -> dict[int, str]:
    """{line: reason} of what the filter drops by itself. The first row's id is the greatest."""
    rows = judged(pairs, list(range(len(pairs), 0, -1)))
    rows = alike_rows(rows) if rule in GROUP_FILTERS else rows
    judged_rows = rows.select("line", reason=rule(filters))
    return dict(judged_rows.drop_nulls().iter_rows())


CASES = [
    pytest.param(rule, *example, id=f"{rule.__name__}-{n}")
    for rule in FILTERS
    for n, example in enumerate(examples(rule))
]


@pytest.mark.parametrize(("rule", "line", "verdict", "pairs"), CASES)
def test_an_example_of_a_filter(rule: Filter, line: str, verdict: str, pairs: list[tuple[str, str]]) -> None:
    """The first row is the one meant. Its id is not the smallest, so that it is the copy of the others."""
    found = fired(rule, pairs, Filters())
    assert (1 in found) == (verdict == "drops"), (line, found)


@pytest.mark.parametrize(("rule", "line", "verdict", "pairs"), CASES)
def test_no_filter_drops_the_examples_that_another_one_keeps(
    rule: Filter, line: str, verdict: str, pairs: list[tuple[str, str]]
) -> None:
    if verdict == "keeps":
        _, dropped = apply_filters(judged(pairs[:1]), Filters())
        assert dropped.is_empty(), dropped.to_dicts()


def test_every_filter_says_why_it_drops_and_has_examples_of_both_sorts() -> None:
    for rule in FILTERS:
        assert {verdict for _, verdict, _ in examples(rule)} == {"drops", "keeps"}, rule.__name__
    assert len({rule.__name__ for rule in FILTERS}) == len(FILTERS)


@pytest.mark.parametrize("switch", sorted(set(SWITCHES) - LATER))
def test_a_filter_that_is_switched_off_drops_nothing(switch: str) -> None:
    rule = next(rule for rule in FILTERS if rule.__name__ == switch)
    for line, _, pairs in examples(rule):
        assert fired(rule, pairs, Filters(**{switch: False})) == {}, line


def dropped_as(*pairs: tuple[str | None, str | None]) -> list[tuple[int, str, str]]:
    _, dropped = apply_filters(judged(list(pairs)), BOUNDS)
    return dropped.select("line", "filter", "reason").sort("line").rows()


@pytest.mark.parametrize(
    ("question", "answer", "name", "reason"),
    [
        (None, "2", "missing_question", "the question is empty"),
        (QUESTION, None, "missing_answer", "the answer is empty"),
        (QUESTION, "N/A", "placeholder", 'the answer is a placeholder ("N/A")'),
        (QUESTION, "notfound", "placeholder", 'the answer is a placeholder ("notfound")'),
        (QUESTION, "[none]", "placeholder", 'the answer is a placeholder ("[none]")'),
        (QUESTION, "\f12", "lost_latex", 'the answer holds a control character, before "12"'),
        (QUESTION, "rac{1}{2}", "lost_latex", 'the answer has lost the backslash of a command ("rac{1}{2}")'),
        ("What is 3 \times 4?", "12", "lost_latex", 'the question has lost the backslash of a command ("imes 4?")'),
        (QUESTION, "2}", "unbalanced_answer", "the answer has a brace without its partner"),
        ("a" * 9, "2", "question_length", "the question has 9 characters, fewer than 10"),
        ("a" * 41, "2", "question_length", "the question has 41 characters, more than 40"),
        (QUESTION, "123456", "answer_length", "the answer has 6 characters, more than 5"),
        (QUESTION, "No.", "yes_no", 'the answer is yes or no ("no")'),
        ("What is it? A) 5  B) 7", "2", "multiple_choice", 'the question offers its answers ("? A) 5 B) 7")'),
        ("Prove that it is so.", "2", "proof", 'the question asks for a proof ("prove that")'),
        ("(a) Find x.\n(b) Find y.", "2", "multi_part", 'the question has several parts ("(a) find x. (b) find")'),
        ("See www.a.org for it.", "2", "reference", 'the question refers to what is not in it ("www.a.org")'),
        ("Сколько будет дважды два?", "4", "non_english", 'the question is not in English ("Сколько")'),
        (None, None, "missing_question", "the question is empty"),
    ],
)
def test_each_drop_has_its_filter_and_its_reason(
    question: str | None, answer: str | None, name: str, reason: str
) -> None:
    assert dropped_as((question, answer)) == [(1, name, reason)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [("a" * 10, "2"), ("ä" * 40, "2"), (QUESTION, "12345"), (QUESTION, r"\(12345\)")],
    ids=["shortest", "longest in characters, not bytes", "longest answer", "delimiters do not count"],
)
def test_the_bounds_themselves_are_kept(question: str, answer: str) -> None:
    assert dropped_as((question, answer)) == []


FOREIGN = {
    "French": "Un train parcourt 120 km en 2 heures. Quelle est sa vitesse moyenne en kilomètres par heure ?",
    "Spanish": "Un tren recorre 120 km en 2 horas. ¿Cuál es su velocidad media en kilómetros por hora?",
    "German": "Ein Zug fährt 120 km in 2 Stunden. Wie hoch ist seine mittlere Geschwindigkeit?",
    "Portuguese": "Um trem percorre 120 km em 2 horas. Qual é a sua velocidade média em quilômetros por hora?",
    "Italian": "Un treno percorre 120 km in 2 ore. Qual è la sua velocità media in chilometri all'ora?",
    "Polish": "Pociąg przejeżdża 120 km w 2 godziny. Jaka jest jego średnia prędkość w kilometrach na godzinę?",
    "Turkish": "Bir tren 2 saatte 120 km yol gidiyor. Bu trenin ortalama hızı saatte kaç kilometredir?",
    "Vietnamese": "Một đoàn tàu đi được 120 km trong 2 giờ. Vận tốc trung bình của đoàn tàu là bao nhiêu?",
    "Indonesian": "Sebuah kereta menempuh 120 km dalam 2 jam. Berapa kecepatan rata-rata kereta itu per jam?",
    "Dutch": "Een trein legt 120 km af in 2 uur. Wat is de gemiddelde snelheid van de trein?",
    "Russian": "Поезд проходит 120 км за 2 часа. Какова его средняя скорость?",
    "Chinese": "一列火车2小时行驶120公里。它的平均速度是多少？",
    "Japanese": "列車は2時間で120km走ります。平均の速さは時速何キロですか。",
    "Arabic": "يقطع قطار مسافة 120 كم في ساعتين. ما سرعته المتوسطة؟",
    "Spanish in a formula": r"\(\text{Hallar el valor de } x \text{ si } 2x + 3 = 7 \text{ y } y = 3\)",
    "Chinese with functions": "求解方程 sin x + cos y = 1",
    "Korean with LaTeX": r"방정식 \(\frac{x}{2} + \sqrt{3} = \frac{1}{2}\) 의 해를 구하여라.",
}
ENGLISH = [
    r"Evaluate $\displaystyle \int_0^{\pi} \frac{\sin x}{1 + \cos^2 x}\,dx$",
    r"$\triangle ABC$ has $\angle A = 60^\circ$, $AB = 5$, $AC = 7$. $BC = ?$",
    r"\[ \sum_{k=1}^{\infty} \frac{1}{k^2} = \; ? \]",
    "Expand brackets stepwise: (x + y)^2",
    "The words мир and дом have 3 letters each. How many letters do they have?",
    "Simplify: (3x + 2y) - (x - 5y) + (4x + y)",
    r"Given $\alpha + \beta + \gamma = \pi$ and $\tan \alpha, \tan \beta, \tan \gamma$ integers, find them.",
    "Señor Müller buys 3 piñatas in São Paulo for 5 reais each. How much does he pay?",
    "x² + y² = 25, x·y = 12, x + y = ?",
    "Ω is a circle of radius π√2; what is ℝ-area?",
    "A die is thrown. Find the chance of a six, for a die that is fair.",
    r"\begin{align*} 3x + y &= 7 \\ x - y &= 1 \end{align*} Solve.",
]


@pytest.mark.parametrize("language", FOREIGN)
def test_other_languages_are_told(language: str) -> None:
    _, dropped = apply_filters(judged([(FOREIGN[language], "60")]), Filters())
    assert dropped["filter"].to_list() == ["non_english"]


@pytest.mark.parametrize("question", ENGLISH)
def test_english_is_not_taken_for_another_language(question: str) -> None:
    assert apply_filters(judged([(question, "60")]), Filters())[1].is_empty()


def test_none_of_the_demo_s_problems_is_dropped() -> None:
    pairs = [(row["question"], row["expected_answer"]) for row in demo_rows(2400, 0)]
    _, dropped = apply_filters(judged(pairs), Filters())
    assert set(dropped["filter"]) <= {"exact_duplicate"}


@pytest.mark.parametrize(
    "again", [QUESTION.upper(), f"  {QUESTION}", QUESTION.replace(" ", "\n\t"), "What is \uff11 + 1, as a number?"]
)
def test_the_copy_with_the_smallest_id_stays_in_any_order(again: str) -> None:
    rows = judged([(QUESTION, "2"), (again, "2"), ("What is 1 + 2?", "3")], [7, 5, 9])
    for order in (rows, rows.reverse()):
        kept, dropped = apply_filters(order, Filters())
        assert sorted(kept["line"]) == [2, 3]
        assert dropped.select("line", "filter", "reason").rows() == [
            (1, "exact_duplicate", "the same question as line 2")
        ]


def test_of_identical_rows_the_first_line_stays() -> None:
    kept, _ = apply_filters(judged([(QUESTION, "2")] * 3, [5, 5, 5]).reverse(), Filters())
    assert kept["line"].to_list() == [1]


def test_conflicting_answers_name_each_other() -> None:
    rows = judged([(QUESTION, "2"), (QUESTION, "3"), (QUESTION, r"\(2\)"), (QUESTION, "2.")], [4, 3, 2, 1])
    _, dropped = apply_filters(rows, Filters())
    assert dropped.select("line", "filter", "reason").sort("line").rows() == [
        (1, "conflicting_answers", 'line 2 answers "3" where this row answers "2"'),
        (2, "conflicting_answers", 'line 4 answers "2." where this row answers "3"'),
        (3, "conflicting_answers", 'line 2 answers "3" where this row answers "2"'),
        (4, "conflicting_answers", 'line 2 answers "3" where this row answers "2."'),
    ]


def test_without_that_filter_one_of_the_conflicting_rows_stays() -> None:
    rows = judged([(QUESTION, "2"), (QUESTION, "3")], [2, 1])
    kept, dropped = apply_filters(rows, Filters(conflicting_answers=False))
    assert kept["line"].to_list() == [2]
    assert dropped["filter"].to_list() == ["exact_duplicate"]


def test_a_dropped_row_takes_no_copy_with_it() -> None:
    assert [drop[:2] for drop in dropped_as((QUESTION, "No"), (QUESTION, "2"))] == [(1, "yes_no")]


def test_every_row_is_kept_or_dropped_once() -> None:
    rows = judged([(QUESTION, "2"), (None, "2"), (QUESTION, "2"), ("short", "}"), ("Another question", "1234567")])
    kept, dropped = apply_filters(rows.lazy(), BOUNDS)
    assert sorted([*kept["line"], *dropped["line"]]) == [1, 2, 3, 4, 5]
    assert kept.columns == rows.columns
    assert tuple(dropped.columns) == DROPPED


def test_no_rows_pass_through() -> None:
    kept, dropped = apply_filters(judged([]), BOUNDS)
    assert kept.is_empty()
    assert dropped.schema["reason"] == pl.String


def test_groups_come_last() -> None:
    assert FILTERS[-len(GROUP_FILTERS) :] == GROUP_FILTERS


def test_the_number_of_threads_decides_nothing() -> None:
    program = (
        "from ernie_pipeline_tests.data.test_filters import *\n"
        "pairs = [(p[0], p[1]) for r in FILTERS for _, _, ps in examples(r) for p in ps] * 40\n"
        "kept, dropped = apply_filters(judged(pairs), Filters())\n"
        "print(pl.thread_pool_size() > 0, kept['line'].to_list(), dropped.drop('question').rows())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, env={"POLARS_MAX_THREADS": threads}
        ).stdout
        for threads in ("1", "2")
    }
    assert len(outputs) == 1
