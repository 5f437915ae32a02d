r"""How many respelled benchmark questions decontamination finds, and how many innocent rows it takes.

    python benchmarks/data/decontamination.py [--gsm8k ROWS.jsonl] [--overlap 0.6] [--show]

Families of questions: school problems with LaTeX from templates written here, contest problems of random sentences
with the stock phrases of contests, problems of reasoning-gym, and GSM8K's where its rows are given. Of each, 300
questions are the benchmark; innocent rows are other questions of the same family (so the same templates with other
numbers), and the others the benchmark's own, respelled by `respell.py`. All stand in one source. No network; the same
in every run.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import make_rows
import polars as pl
import respell

from ernie_pipeline.data.decontaminate.overlap import overlaps
from ernie_pipeline.recipe.sections import Decontamination

BENCHMARK, INNOCENT, SHOWN = 300, 4000, 4
GYM = (
    "gsm_symbolic", "simple_geometry", "basic_arithmetic", "chain_sum", "prime_factorization",
    "polynomial_equations", "simple_integration", "calendar_arithmetic", "time_intervals", "lcm", "gcd",
    "count_primes", "products", "leg_counting", "complex_arithmetic", "dice", "base_conversion",
    "decimal_arithmetic", "simple_equations", "number_sequence",
)  # fmt: skip
SCHOOL = r"""
Simplify $\frac{@}{@}$.
Simplify $\sqrt{@}$.
Evaluate $\log_{#} @$.
Compute $\sin @^\circ$.
Compute $\cos @^\circ$.
Compute $\tan @^\circ$.
Compute $\binom{@}{#}$.
Evaluate $@ + # \cdot @ - @$.
What is the greatest common factor of $@$ and $@$?
What is the least common multiple of $@$ and $@$?
How many positive divisors does $@$ have?
What is the sum of the positive divisors of $@$?
Convert $@_{#}$ to base @.
Find the remainder when $@^{@}$ is divided by $#$.
What is the units digit of $@^{@}$?
Find the domain of the function $f(x) = \frac{\sqrt{x-@}}{x^2-@}$. Express your answer in interval notation.
If $f(x) = @x^2 - #x + @$, what is the value of $f(#)$?
If $x^2 = @$ and $x > 0$, what is the value of $x + @$?
Find the roots of $x^2 - @x + @ = 0$.
Find the sum of the roots of $x^2 + @x - @ = 0$.
Factor $@x^2 - @$ completely.
Expand the product $(x+@)(x-@)$.
Solve for $x$: $@x + @ = @$.
What is the distance between the points $(@,@)$ and $(-@,@)$?
Find the midpoint of the segment with endpoints $(@,-@)$ and $(@,@)$.
What is the slope of the line $@x + @y = @$?
In right triangle $ABC$, we have $\angle B = 90^\circ$, $AB = @$ and $BC = @$. Find $\sin A$.
A circle has a radius of $@$ cm. What is its area in square centimeters? Express your answer in terms of $\pi$.
The lengths of two sides of a triangle are $@$ and $@$ units. How many integers can be the length of the third side?
How many ways are there to choose $#$ books from a shelf of $@$ different books?
A bag has $@$ red marbles and $@$ blue marbles. Two marbles are drawn without replacement. What is the
    probability that both are red? Express your answer as a common fraction.
Two fair dice with $@$ sides are rolled. What is the probability that the sum is $@$? Express your answer as a
    common fraction.
Find the vector $\mathbf{v}$ such that $\begin{pmatrix} @ & @ \\ # & @ \end{pmatrix} \mathbf{v} =
    \begin{pmatrix} @ \\ @ \end{pmatrix}$.
Let $a \star b = a^{#} + @b$. What is the value of $@ \star @$?
Find the smallest positive integer $n$ such that $n \equiv # \pmod{@}$ and $n \equiv # \pmod{@}$.
The arithmetic sequence begins with $@$ and has the common difference $@$. What is its $@$th term?
What is the sum of the geometric series $@ + @ \cdot \frac{1}{#} + \cdots$ with $@$ terms?
If $@^{x} = @$, find $x$.
Compute $\left\lfloor \frac{@}{#} \right\rfloor$.
Compute $\left\lceil \frac{@}{#} \right\rceil$.
The price of a coat is reduced by @% and then by another @%. What percent of the original price is it now?
A train covers $@$ miles in $@$ minutes. What is its average speed in miles per hour?
Let $z = @ + @i$ and $w = @ - @i$. Find $zw$.
Find all values of $k$ for which $x^2 + kx + @ = 0$ has exactly one solution.
"""
ENDINGS = r"""
The probability that this happens can be written as $\frac{m}{n}$, where $m$ and $n$ are relatively prime
    positive integers. Find $m+n$.
The area can be expressed as $\frac{p}{q}$, where $p$ and $q$ are coprime positive integers. Find $p + q$.
Find the remainder when the number of such arrangements is divided by $1000$.
The length can be written in the form $m\sqrt{n}$, where $m$ and $n$ are positive integers and $n$ is not
    divisible by the square of any prime. Find $m+n$.
What is the sum of all possible values of $x$?
How many ordered pairs of positive integers $(a,b)$ are there with this property? Express your answer as a
    common fraction.
Let $N$ be the number of ways. Find the remainder when $N$ is divided by $100$.
"""

Questions = list[str]
Make = Callable[[int], Questions]


def _lines(text: str) -> list[str]:
    """Lines; one that is indented continues the one before it."""
    return text.strip().replace("\n    ", " ").splitlines()


def school(count: int) -> Questions:
    """Templates with random numbers."""
    draw = random.Random(1)
    lines = _lines(SCHOOL)

    def one(i: int) -> str:
        text = lines[i % len(lines)]
        while "@" in text or "#" in text:
            text = text.replace("@", str(draw.randrange(2, 150)), 1).replace("#", str(draw.randrange(2, 10)), 1)
        return text

    return [one(i) for i in range(count)]


def contest(count: int) -> Questions:
    """Random sentences, then what contests end with."""
    maker = make_rows.Maker(2)
    endings = _lines(ENDINGS)
    return [f"{maker.question().split('. ')[0].rstrip('.?')}. {maker.pick(endings)}" for _ in range(count)]


def gym(count: int) -> Questions:
    """reasoning-gym, family by family in turn."""
    import reasoning_gym

    share = count // len(GYM) + 1
    columns = [[entry["question"] for entry in reasoning_gym.create_dataset(name, size=share, seed=3)] for name in GYM]
    return [question.strip() for row in zip(*columns, strict=True) for question in row][:count]


def given(path: Path) -> Make:
    """The questions of rows of a file, in a random order."""
    questions = [json.loads(line)["question"] for line in path.read_bytes().split(b"\n") if line]
    random.Random(4).shuffle(questions)
    return lambda count: questions[:count]


def measure(make: Make, overlap: float, show: bool) -> dict[str, float]:
    """Shares of rows that went: "innocent", and of each respelling."""
    questions = list(dict.fromkeys(make(BENCHMARK + INNOCENT)))
    draw = random.Random(5)
    benchmark, rows = questions[:BENCHMARK], [("innocent", text, -1) for text in questions[BENCHMARK:]]
    for change in respell.RESPELLINGS:
        spelled = ((change(text, draw), number) for number, text in enumerate(benchmark))
        rows += [(change.__name__, text, number) for text, number in spelled if text != benchmark[number]]
    table = pl.DataFrame(rows, schema=["kind", "question", "number"], orient="row").with_row_index("line", offset=1)
    references = pl.DataFrame({"set": "benchmark", "row": range(BENCHMARK), "question": benchmark})
    found = overlaps(table, references, overlap)
    went = table.with_columns(went=pl.col("line").is_in((found["index"] + 1).implode()))
    if show:
        shown(went, found, references)
    return dict(went.group_by("kind", maintain_order=True).agg(pl.col("went").mean()).iter_rows())


def shown(went: pl.DataFrame, found: pl.DataFrame, references: pl.DataFrame) -> None:
    """Print some that went wrong."""
    wrong = went.filter((pl.col("kind") == "innocent") == pl.col("went")).unique("question", maintain_order=True)
    by_index = {
        index: (score, question) for index, score, question in found.select("index", "score", "question").rows()
    }
    for line, kind, question, number, _ in wrong.group_by("kind").head(SHOWN).select(went.columns).iter_rows():
        print(f"- {kind}: {question[:200]!r}\n      {by_index.get(line - 1) or references['question'][number][:200]!r}")


def main() -> None:
    """Print a table of families and kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, help="rows in Nemotron's schema")
    parser.add_argument("--overlap", type=float, default=Decontamination().overlap)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    families: dict[str, Make] = {"school": school, "contest": contest, "reasoning-gym": gym}
    if options.gsm8k:
        families["GSM8K"] = given(options.gsm8k)
    shares = {name: measure(make, options.overlap, options.show) for name, make in families.items()}
    print("| rows | " + " | ".join(shares) + " |\n|---|" + "---|" * len(shares))
    for kind in dict.fromkeys(kind for found in shares.values() for kind in found):
        print(
            f"| {kind} | "
            + " | ".join(f"{found[kind]:.2%}" if kind in found else "" for found in shares.values())
            + " |"
        )


if __name__ == "__main__":
    main()
