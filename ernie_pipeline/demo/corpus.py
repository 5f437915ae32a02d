"""The base model's pre-training text: arithmetic and algebra, asked and answered, made by this generator alone.

Like the text that a real base model has read, it answers questions in more ways than one: at once or in steps, with a
box around the result or without. So the base model can work a problem in steps and box its result, and does so some of
the time. Some texts begin with filler, sentences of jumbled words, so that strange words before a problem do not throw
the model. None of the demo's problems stands in it (`problems.expressions` decides), so what the demo measures was
seen by neither model.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ernie_pipeline.demo.problems import expressions

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Problem:
    """One problem in the forms that a text may take: as symbols, as words, with its working, with its answer.

    `value`: what goes into a box, where that is not the whole `answer`.
    """

    symbols: str
    words: str
    working: str
    answer: str
    value: str = ""

    @property
    def steps(self) -> str:
        """The problem as symbols, and its working to the end."""
        return f"{self.symbols} {self.working}"

    @property
    def boxed(self) -> str:
        return f"\\boxed{{{self.value or self.answer}}}"


def texts(seed: int, excluded: frozenset[str]) -> Iterator[str]:
    """Endless short texts, each one problem and its solution; none holds an expression of `excluded`."""
    rng = random.Random(seed)
    while True:
        text = _text(rng)
        if excluded.isdisjoint(expressions(text)):
            yield text


def _text(rng: random.Random) -> str:
    problem = rng.choices(KINDS, WEIGHTS)[0](rng)
    body = _dialogue(rng, problem) if rng.random() < ASKED else _plain(rng, problem)
    return _filler(rng) + body if rng.random() < FILLED else body


def _plain(rng: random.Random, problem: Problem) -> str:
    """A line of a book of sums."""
    form = rng.random()
    if form < 0.15:
        return f"{problem.symbols} {problem.answer}"
    if form < 0.60:
        return problem.steps
    if form < 0.75:
        return f"{problem.words}{rng.choice(LEADS)}{problem.answer}{rng.choice(('', '.'))}"
    return f"{problem.words}\n{problem.working}"


def _dialogue(rng: random.Random, problem: Problem) -> str:
    """A question, often with an instruction before it, and what somebody answered: see `RESPONSES`."""
    asks = rng.random()
    instruction = rng.choice(BOX_INSTRUCTIONS) if asks < 0.6 else rng.choice(INSTRUCTIONS) if asks < 0.75 else ""
    weights = RESPONSES["boxed" if asks < 0.6 else "plain"]
    response = rng.choices(
        (problem.boxed, f"{problem.steps}\n{problem.boxed}", problem.answer, problem.steps), weights
    )[0]
    return f"{instruction}{problem.words}{rng.choice(TAILS)} Answer:{response}"


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
        (
            "Compute {}.",
            "What is {}?",
            "Find the value of {}.",
            "Work out {}",
            "State the final answer to the following arithmetic problem: {} =",
            "State the final answer to the following arithmetic problem: {} =",
        )
    )
    return Problem(f"{expression} =", words.format(expression), " = ".join(steps), str(total))


def _product(rng: random.Random) -> Problem:
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    words = rng.choice(
        (
            "Multiply {} * {}.",
            "What is {} * {}?",
            "The product {} * {}.",
            "Solve the following multiplication: {} * {}.",
            "Solve the following multiplication: {} * {}. Give only the result as your final answer.",
        )
    )
    return Problem(f"{a} * {b} =", words.format(a, b), _multiplied(a, b), str(a * b))


def _multiplied(a: int, b: int) -> str:
    """What follows "a * b =": b's tens and ones apart, where it has both."""
    tens, ones = b // 10 * 10, b % 10
    return f"{a} * {tens} + {a} * {ones} = {a * tens} + {a * ones} = {a * b}" if tens and ones else str(a * b)


def _euclid(a: int, b: int) -> str:
    """What follows "gcd(a, b) =": the pairs of Euclid's algorithm and what they end at."""
    steps = []
    while b:
        a, b = b, a % b
        steps.append(f"({a}, {b})")
    return f"{' -> '.join(steps)} = {a}"


def _gcd(rng: random.Random) -> Problem:
    factor = rng.choice((1, 1, rng.randint(2, 20)))
    a, b = (factor * rng.randint(1, max(1, 120 // factor)) for _ in range(2))
    words = rng.choice(
        (
            "The greatest common divisor of {}, {}.",
            "Find the GCD of the numbers: {}, {}.",
            "Find the Greatest Common Divisor (GCD) of these numbers: {}, {}.",
            "Find the Greatest Common Divisor (GCD) of these numbers: {}, {}. Give only the GCD as your final answer.",
        )
    )
    return Problem(f"gcd({a}, {b}) =", words.format(a, b), _euclid(a, b), str(math.gcd(a, b)))


def _lcm(rng: random.Random) -> Problem:
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    answer = math.lcm(a, b)
    words = rng.choice(
        (
            "The least common multiple of {}, {}.",
            "Find the LCM of the numbers: {}, {}.",
            "Find the Least Common Multiple (LCM) of these numbers: {}, {}",
            "Find the Least Common Multiple (LCM) of these numbers: {}, {}",
        )
    )
    large, small = max(a, b), min(a, b)
    times = small // math.gcd(a, b)
    division = f"{small} / {math.gcd(a, b)} = {times}; {large} * {times} = {_multiplied(large, times)}"
    return Problem(f"lcm({a}, {b}) =", words.format(a, b), f"{_euclid(large, small)}; {division}", str(answer))


def _fraction(rng: random.Random) -> Problem:
    top, bottom, factor = rng.randint(1, 20), rng.randint(1, 20), rng.randint(2, 15)
    common = math.gcd(top, bottom)
    top, bottom = sorted((top // common, bottom // common))
    style = rng.choice(("{}/{}", "\\frac{{{}}}{{{}}}", "$\\frac{{{}}}{{{}}}$"))
    given, answer = style.format(top * factor, bottom * factor), style.format(top, bottom)
    words = rng.choice(
        (
            "Simplify {}.",
            "Write the fraction {} in lowest terms:",
            "Simplify the fraction {} to its lowest terms.",
            "Simplify the fraction {} to its lowest terms. Give only the simplified fraction as your final answer.",
        )
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
    words = rng.choice(
        (
            "Solve {}.",
            "Solve for {letter}: {}",
            "Find the value of {letter} in the equation: {}",
            "Determine the value of {letter} that satisfies: {}",
        )
    )
    solved = f"; {letter} = {x}"
    asked = words.format(equation, letter=letter)
    return Problem(f"{equation};", asked, f"{working}{solved}", f"{letter} = {x}", str(x))


def _bracket(rng: random.Random) -> Problem:
    letter, x, a, b = rng.choice(LETTERS), rng.randint(1, 20), rng.randint(2, 12), rng.randint(1, 20)
    equation = f"{a}*({letter} + {b}) = {a * (x + b)}"
    working = f"{letter} + {b} = {x + b}; {letter} = {x}"
    asked = rng.choice(
        ("Solve {}.", "Solve for {letter}: {}", "Determine the value of {letter} that satisfies: {}")
    ).format(equation, letter=letter)
    return Problem(f"{equation};", asked, working, f"{letter} = {x}", str(x))


KINDS: tuple[Callable[[random.Random], Problem], ...] = (_chain, _product, _gcd, _lcm, _fraction, _equation, _bracket)
WEIGHTS = (5, 6, 3, 3, 3, 4, 1)
ASKED = 0.75
"""The share of texts in which somebody asks and somebody answers."""
RESPONSES = {"boxed": (0.48, 0.25, 0.10, 0.17), "plain": (0.02, 0.03, 0.30, 0.65)}
"""How often a response is the boxed result, the steps and the boxed result, the bare result, the steps alone; after an
instruction that speaks of a box, and otherwise."""
BOX_INSTRUCTIONS = (
    "Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n",
    "Solve this problem. Put the answer inside \\boxed{}.\n\n",
    "Put your final answer within \\boxed{}.\n",
    "Find the result and give it in \\boxed{}.\n\n",
    "Make sure that the answer is inside \\boxed{}.\n",
)
INSTRUCTIONS = (
    "Solve the following math problem.\n\n",
    "Read with care and solve:\n",
    "Give the answer and only the answer.\n",
    "Here is a problem.\n\n",
)
TAILS = (
    "",
    "",
    "",
    " Give only the result.",
    " Give only the number as your final answer.",
    " State the final answer.",
)
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
