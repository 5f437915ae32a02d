"""The base model's pre-training text: plain worked arithmetic and algebra, made by this generator alone.

Some of the texts begin with filler, sentences of jumbled words, so that strange words before a problem do not throw the
model. There is no chat, no instruction and no answer format: that is what the adapter is to learn. None of the demo's
problems stands in it (`problems.expressions` decides), so what the demo measures was seen by neither model.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ernie_pipeline.demo.problems import expressions

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Problem:
    """One problem in the forms that a text may take: as symbols, as words, with its working, with its answer."""

    symbols: str
    words: str
    working: str
    answer: str


def texts(seed: int, excluded: frozenset[str]) -> Iterator[str]:
    """Endless short texts, each one problem and its solution; none holds an expression of `excluded`."""
    rng = random.Random(seed)
    while True:
        text = _text(rng)
        if excluded.isdisjoint(expressions(text)):
            yield text


def _text(rng: random.Random) -> str:
    problem = rng.choices(KINDS, WEIGHTS)[0](rng)
    form = rng.random()
    if form < 0.35:
        body = f"{problem.symbols} {problem.answer}"
    elif form < 0.60:
        body = f"{problem.symbols} {problem.working}"
    elif form < 0.85:
        body = f"{problem.words}{rng.choice(LEADS)}{problem.answer}{rng.choice(('', '.'))}"
    else:
        body = f"{problem.words}\n{problem.working}"
    return _filler(rng) + body if rng.random() < FILLED else body


def _filler(rng: random.Random) -> str:
    """One to four sentences that have nothing to do with the problem; sense is not needed, only words."""
    sentences = []
    for _ in range(rng.randint(1, 4)):
        words = rng.choices(WORDS, k=rng.randint(2, 9))
        sentences.append(" ".join(words) + rng.choice((".", ".", ",", ":", "")))
    return rng.choice((" ", "\n")).join(sentences) + rng.choice((" ", "\n", "\n\n"))


def _chain(rng: random.Random) -> Problem:
    numbers = [rng.randint(0, 9 if rng.random() < 0.15 else 99) for _ in range(rng.choice((2, 2, 3, 3, 4)))]
    signs = [rng.choice("+-") for _ in numbers[1:]]
    expression, total, steps = str(numbers[0]), numbers[0], []
    for position, (sign, number) in enumerate(zip(signs, numbers[1:], strict=True)):
        expression += f" {sign} {number}"
        total += number if sign == "+" else -number
        rest = "".join(f" {s} {n}" for s, n in zip(signs[position + 1 :], numbers[position + 2 :], strict=True))
        steps.append(f"{total}{rest}")
    words = rng.choice(
        ("Compute {}.", "What is {}?", "Find the value of {}.", "Work out {}", "An arithmetic problem: {}")
    )
    return Problem(f"{expression} =", words.format(expression), " = ".join(steps), str(total))


def _product(rng: random.Random) -> Problem:
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    tens, ones = b // 10 * 10, b % 10
    split = f"{a} * {tens} + {a} * {ones} = {a * tens} + {a * ones} = {a * b}" if tens and ones else str(a * b)
    words = rng.choice(("Multiply {} * {}.", "What is {} * {}?", "The product {} * {}.", "A multiplication: {} * {}."))
    return Problem(f"{a} * {b} =", words.format(a, b), split, str(a * b))


def _gcd(rng: random.Random) -> Problem:
    factor = rng.choice((1, 1, rng.randint(2, 20)))
    a, b = (factor * rng.randint(1, max(1, 120 // factor)) for _ in range(2))
    x, y, steps = a, b, []
    while y:
        x, y = y, x % y
        steps.append(f"({x}, {y})")
    words = rng.choice(
        (
            "The greatest common divisor of {}, {}.",
            "Find the GCD of the numbers: {}, {}.",
            "The Greatest Common Divisor: {}, {}",
        )
    )
    return Problem(f"gcd({a}, {b}) =", words.format(a, b), " -> ".join(steps) + f" = {x}", str(x))


def _lcm(rng: random.Random) -> Problem:
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    common, answer = math.gcd(a, b), math.lcm(a, b)
    words = rng.choice(
        (
            "The least common multiple of {}, {}.",
            "Find the LCM of the numbers: {}, {}.",
            "The Least Common Multiple: {}, {}",
        )
    )
    return Problem(f"lcm({a}, {b}) =", words.format(a, b), f"{a} * {b // common} = {answer}", str(answer))


def _fraction(rng: random.Random) -> Problem:
    top, bottom, factor = rng.randint(1, 20), rng.randint(1, 20), rng.randint(2, 15)
    common = math.gcd(top, bottom)
    top, bottom = sorted((top // common, bottom // common))
    style = rng.choice(("{}/{}", "\\frac{{{}}}{{{}}}", "$\\frac{{{}}}{{{}}}$"))
    given, answer = style.format(top * factor, bottom * factor), style.format(top, bottom)
    words = rng.choice(
        ("Simplify {}.", "Reduce the fraction {} to its lowest terms.", "Write the fraction {} in lowest terms:")
    )
    return Problem(f"{given} =", words.format(given), f"({top} * {factor})/({bottom} * {factor}) = {answer}", answer)


def _equation(rng: random.Random) -> Problem:
    letter, x = rng.choice(LETTERS), rng.randint(1, 20)
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    term = letter if a == 1 else f"{a}*{letter}"
    shape = rng.randrange(4)
    if shape == 0:
        equation, working = f"{term} + {b} = {a * x + b}", f"{term} = {a * x}"
    elif shape == 1:
        equation, working = f"{term} - {b} = {a * x - b}", f"{term} = {a * x}"
    elif shape == 2:
        equation, working = f"{b} - {term} = {b - a * x}", f"{term} = {a * x}"
    else:
        equation, working = f"{a * b}*{letter} = {a * b * x}", f"{letter} = {a * b * x} / {a * b}"
    words = rng.choice(("Solve {}.", "Find {letter} in the equation: {}.", "Solve for {letter}: {}", "An equation: {}"))
    solved = f"; {letter} = {x}"
    return Problem(f"{equation};", words.format(equation, letter=letter), f"{working}{solved}", f"{letter} = {x}")


KINDS: tuple[Callable[[random.Random], Problem], ...] = (_chain, _product, _gcd, _lcm, _fraction, _equation)
WEIGHTS = (5, 6, 3, 3, 3, 4)
LEADS = (
    " ",
    "\n",
    " The answer is ",
    "\nThe answer is ",
    " Answer: ",
    "\nAnswer: ",
    " The final answer is ",
    " Result: ",
)
FILLED = 0.15
FILLER = """
Solve the following math problem. Make sure to put the answer (and only answer) inside a box, User and Assistant, State
final result State it boxed {} {}. \\ \\boxed of an arithmetic multiplication Give only as your Find Greatest Common
Divisor Least Multiple (GCD) (LCM) GCD LCM these numbers numbers: number Simplify fraction its lowest terms simplified
Determine value that satisfies: satisfies in equation: equation for Read first with care. Here is what we know about
this book: every page has one task, some are short, others long, all can be worked by hand
"""
WORDS = tuple(FILLER.split())
