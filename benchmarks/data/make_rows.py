r"""Write synthetic rows of the size and shape of nvidia/Nemotron-RL-math-OpenMathReasoning, for measuring.

    python make_rows.py OUT ROWS [--benchmark OUT2 QUESTIONS] [--seed N]

The real set has 112,867 rows in 71 MB. Texts are random sentences with LaTeX: they mean nothing, but have the length,
the formulas and the kinds of answers that real ones have, and small known shares (`SHARES`) of what the data stage
looks for. Nothing is copied from any data set. The same seed and count give the same bytes; rows are written as they
are made, so memory does not grow with them. Some rows contain a question of the benchmark set, which depends on the
seed and its size alone: rows and benchmark may be made in separate calls with the same two.
"""

import argparse
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import vocabulary

from ernie_pipeline.demo.problems import INSTRUCTION

QUESTIONS = 20_000
MEDIAN_CHARS = 150  # with the spread below: 71 MB for 112,867 rows
SPREAD = 0.55  # of the log of the length
POOL = 30_000  # formulas to choose from
REMEMBERED = 5_000  # earlier rows that can come again
DELIMITERS = (("\\( ", " \\)"), ("\\(", "\\)"), ("$", "$"))

Answered = tuple[str | None, str | None]
"""A question and its answer."""

SLOT = re.compile(r"\{([A-Z])\}")


class Maker:
    """A seeded source of questions and answers."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.seen: list[tuple[str, str]] = []
        self._pools = {
            "N": vocabulary.THINGS,
            "A": vocabulary.LIKE,
            "V": vocabulary.DOES,
            "P": vocabulary.PEOPLE,
            "K": [str(number) for number in range(2, 2030)],
        }
        self._formulas = [self._formula() for _ in range(POOL)]
        self._setups, self._asks, self._stock = (
            [SLOT.split(text) for text in texts] for texts in (vocabulary.SETUPS, vocabulary.ASKS, vocabulary.STOCK)
        )

    def pick(self, choices: list[str]) -> str:
        """One of `choices`; faster than `random.choice`."""
        return choices[int(self.random.random() * len(choices))]

    def question(self) -> str:
        """Sentences up to a log-normal length, then what is asked."""
        length = MEDIAN_CHARS * math.exp(SPREAD * self.random.gauss(0.0, 1.0))
        delimiters = self.random.choice(DELIMITERS)
        endings = self._stock if self.random.random() < 0.005 else self._asks
        parts = [self._sentence(self.random.choice(endings), delimiters)]
        size = len(parts[0])
        while size < length - 25:  # half a sentence short is closer than half a sentence over
            parts.insert(0, self._sentence(self.random.choice(self._setups), delimiters))
            size += len(parts[0]) + 1
        return " ".join(parts)

    def answer(self) -> str:
        """Mostly numbers; the rest in the shares of a competition data set, roughly."""
        kind = self.random.random()
        number, other, letter = self.number(), self.number(), self.pick(LETTERS)
        if kind < 0.60:
            return number
        if kind < 0.72:
            return f"\\(\\frac{{{number}}}{{{other}}}\\)"
        if kind < 0.78:
            return f"\\({self.pick(self._formulas)}\\)"
        if kind < 0.82:
            return f"\\({number}\\sqrt{{{other}}}\\)"
        if kind < 0.86:
            return f"\\({letter} = {number}\\)"
        if kind < 0.89:
            return f"\\(({number}, {other}]\\)"
        if kind < 0.92:
            return f"\\(\\{{{number}, {other}\\}}\\)"
        if kind < 0.95:
            return f"\\(({number}, {other})\\)"
        if kind < 0.97:
            return f"{number}.{other}"
        if kind < 0.98:
            return f"\\(f({letter}) = {self.pick(self._formulas)}\\)"
        if kind < 0.99:
            return f"{number}\\%"
        return f"the {self.pick(vocabulary.LIKE)} {self.pick(vocabulary.THINGS)}"

    def number(self, lowest: int = 1) -> str:
        """A whole number below 10,000, small ones more often."""
        return str(int(lowest * (10_000 / lowest) ** self.random.random()))

    def _sentence(self, parts: list[str], delimiters: tuple[str, str]) -> str:
        """`parts` is text and slot in turn."""
        return "".join(part if place % 2 == 0 else self._fill(part, delimiters) for place, part in enumerate(parts))

    def _fill(self, slot: str, delimiters: tuple[str, str]) -> str:
        if slot in self._pools:
            return self.pick(self._pools[slot])
        text = self.pick(LETTERS if slot == "X" else self._formulas)
        if slot == "E":
            text += " = " + self.pick(self._pools["K"])
        return delimiters[0] + text + delimiters[1]

    def _formula(self) -> str:
        x, y, n, m, k = self.pick(LETTERS), self.pick(LETTERS), *(self.number(2) for _ in range(3))
        return self.random.choice(
            (
                f"{x}^{{{n}}} + {m}{y}",
                f"\\frac{{{n}{x} + {m}}}{{{k}}}",
                f"\\sqrt{{{x}^2 + {n}{y}}}",
                f"{n}{x} - {m}{y} + {k}",
                f"\\sin({n}{x}) + \\cos({m}{y})",
                f"\\sum_{{{x}={n}}}^{{{m}}} {k}{y}_{x}",
                f"f({x}) = {n}{x}^2 - {m}{x} + {k}",
                f"\\log_{{{n}}}({m}{x})",
                f"\\binom{{{n}}}{{{m}}} {x}^{k}",
                f"\\int_{{0}}^{{{n}}} {x}^{m} \\, d{x}",
                f"|{x} - {n}| \\leq {m}{y}",
                f"{x}_{{{n}}} {y}_{{{m}}}",
                f"\\angle {x.upper()}{y.upper()}C = {n}^\\circ",
                f"({x} + {n})({y} - {m})",
            )
        )


LETTERS = list("abcdefghkmnpqrstuvwxyz")


def _multi_part(maker: Maker) -> Answered:
    first, second = maker.question(), maker.question()
    marks = maker.random.choice((("(a)", "(b)"), ("(1)", "(2)"), ("(i)", "(ii)"), ("a)", "b)")))
    return f"{marks[0]} {first}\n{marks[1]} {second}", f"({maker.number()}, {maker.number()})"


def _proof(maker: Maker) -> Answered:
    ask = maker.random.choice(("Prove that", "Show that", "Prove that there is a number with"))
    return f"{maker.question()} {ask} \\(x \\ge {maker.number()}\\).", maker.answer()


def _yes_no(maker: Maker) -> Answered:
    return f"{maker.question()} Is \\(x\\) always larger than {maker.number()}?", maker.random.choice(
        ("Yes", "No", "\\text{Yes}", "True")
    )


def _choices(maker: Maker) -> Answered:
    a, b, c, d = (maker.number() for _ in range(4))
    style = maker.random.choice(
        ("(A) {} (B) {} (C) {} (D) {}", "\nA. {}\nB. {}\nC. {}\nD. {}", "(a) {} (b) {} (c) {} (d) {}")
    )
    return f"{maker.question()} {style.format(a, b, c, d)}", maker.random.choice(("A", "\\text{B}", "C", d))


def _reference(maker: Maker) -> Answered:
    text = maker.random.choice(
        (
            "![](https://cdn.example.org/{}.png)",
            "See the figure below, number {}.",
            "The diagram shows angle {}.",
            "As shown in the figure, side {} is dashed.",
            "Use the table at http://example.org/{}.",
        )
    )
    return f"{maker.question()} {text.format(maker.number())}", maker.answer()


def _other_language(maker: Maker) -> Answered:
    text = maker.random.choice(
        (
            "Найдите наименьшее натуральное число, которое делится на {} и на {}.",
            "求最小的正整数，使得它能被{}和{}整除，并且各位数字之和为偶数。",  # noqa: RUF001
            "Determine el menor número entero positivo que es divisible por {} y por {}. ¿Cuántos divisores tiene?",
            "Trouvez le plus petit entier positif qui est divisible par {} et par {}. Combien a-t-il de diviseurs ?",
            "Bestimme die kleinste positive ganze Zahl, die durch {} und durch {} teilbar ist, und ihre Quersumme.",
        )
    )
    return text.format(maker.number(), maker.number()), maker.number()


def _missing(maker: Maker) -> Answered:
    question, answer = maker.question(), maker.answer()
    return maker.random.choice(
        (
            (None, answer),
            ("", answer),
            (question, None),
            (question, " "),
            (question, "N/A"),
            (question, "?"),
            ("...", answer),
        )
    )


def _unbalanced(maker: Maker) -> Answered:
    return maker.question(), f"\\(\\frac{{{maker.number()}}}{{{maker.number()}\\)"


def _too_long(maker: Maker) -> Answered:
    if maker.random.random() < 0.5:
        return " ".join(maker.question() for _ in range(20)), maker.answer()
    return maker.question(), " and ".join(maker.answer() for _ in range(30))


def _exact_duplicate(maker: Maker) -> Answered:
    question, answer = maker.random.choice(maker.seen)
    change = maker.random.randrange(4)
    if change == 0:
        question = question.replace(" ", "  ", 3) + "\n"
    elif change == 1:
        question = question[0].lower() + question[1:]
    elif change == 2:
        question = re.sub(r"\\\( ?(.*?) ?\\\)", r"$\1$", question)
    return question, answer


def _other_answer(maker: Maker) -> Answered:
    return maker.random.choice(maker.seen)[0], maker.number()


def _near_duplicate(maker: Maker) -> Answered:
    question, answer = maker.random.choice(maker.seen)
    words = question.split(" ")
    change = maker.random.randrange(3)
    if change == 0:
        words[0] = maker.random.choice(("Now", "Suppose", "Here", "Take"))
    elif change == 1:
        words += ["Simplify", "your", "answer."]
    else:
        words[maker.random.randrange(len(words))] = maker.pick(vocabulary.LIKE)
    return " ".join(words), answer


SHARES: dict[Callable[[Maker], Answered], float] = {
    _multi_part: 0.02,
    _proof: 0.01,
    _yes_no: 0.01,
    _choices: 0.015,
    _reference: 0.01,
    _other_language: 0.01,
    _missing: 0.003,
    _unbalanced: 0.001,
    _too_long: 0.001,
    _exact_duplicate: 0.015,
    _other_answer: 0.003,
    _near_duplicate: 0.03,
}
"""What share of the rows each thing has. `CONTAMINATED` comes on top."""

CONTAMINATED = 0.005
"""Rows that contain a question of the benchmark set."""


def rows(count: int, seed: int, benchmark: list[str]) -> Iterator[Answered]:
    """`count` questions with answers, a few of which contain one of `benchmark`."""
    maker = Maker(seed)
    makers = list(SHARES)
    bounds = [sum(list(SHARES.values())[: place + 1]) for place in range(len(SHARES))]
    maker.seen = [(maker.question(), maker.answer()) for _ in range(50)]
    for _ in range(count):
        drawn = maker.random.random()
        if drawn < bounds[-1]:
            special = next(make for make, bound in zip(makers, bounds, strict=True) if drawn < bound)
            yield special(maker)
        elif benchmark and drawn > 1 - CONTAMINATED:
            yield f"{maker.question()} {maker.random.choice(benchmark)}", maker.answer()
        else:
            row = maker.question(), maker.answer()
            _remember(maker, row)
            yield row


def benchmark_questions(count: int, seed: int) -> list[str]:
    """The benchmark set of this seed."""
    maker = Maker(seed + 1_000_003)
    return [maker.question() for _ in range(count)]


def _remember(maker: Maker, row: tuple[str, str]) -> None:
    if len(maker.seen) < REMEMBERED:
        maker.seen.append(row)
    elif maker.random.random() < 0.1:
        maker.seen[maker.random.randrange(REMEMBERED)] = row


def write_rows(path: Path, count: int, seed: int = 0, questions: int = QUESTIONS) -> None:
    """`count` rows in Nemotron's schema, a line each."""
    with path.open("w", encoding="utf-8") as file:
        for question, answer in rows(count, seed, benchmark_questions(questions, seed)):
            messages = [{"role": "user", "content": INSTRUCTION + (question or "")}]
            row = {
                "responses_create_params": {"input": messages},
                "question": question,
                "expected_answer": answer,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_benchmark(path: Path, count: int, seed: int = 0) -> None:
    """`count` questions, {"question": ...} a line."""
    with path.open("w", encoding="utf-8") as file:
        for question in benchmark_questions(count, seed):
            file.write(json.dumps({"question": question}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("--benchmark", nargs=2, metavar=("OUT2", "QUESTIONS"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    questions = int(given.benchmark[1]) if given.benchmark else QUESTIONS
    if given.benchmark:
        write_benchmark(Path(given.benchmark[0]), questions, given.seed)
    write_rows(given.out, given.rows, given.seed, questions)


if __name__ == "__main__":
    main()
