r"""What holds of all answers: put differently they stay right; with a part changed, dropped or added they are wrong."""

from fractions import Fraction
from math import gcd

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ernie_pipeline.grading.judge import judge

numbers = st.integers(-999, 999)
parts = st.one_of(
    numbers.map(str),
    st.tuples(numbers, st.integers(2, 40)).filter(lambda p: gcd(*p) == 1).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
    st.sampled_from([2, 3, 5, 7, 11]).map(lambda n: rf"\sqrt{{{n}}}"),
    st.sampled_from("abcxyz").map(lambda letter: rf"2{letter}+1"),
)
lists = st.lists(parts, min_size=2, max_size=5, unique=True)
quick = settings(max_examples=150, deadline=None)


def right(answer: str, reference: str) -> bool:
    return judge(rf"\boxed{{{answer}}}", reference).correct


def as_set(items: list[str]) -> str:
    return r"\{" + ", ".join(items) + r"\}"


@quick
@given(lists, st.randoms())
def test_sets_and_lists_have_no_order(items: list[str], random: object) -> None:
    assume(len({_value(item) for item in items}) == len(items))
    turned = items[1:] + items[:1]
    for reference in (as_set(items), ", ".join(items)):
        for answer in (as_set(turned), ", ".join(turned), r" \text{ and } ".join(turned)):
            assert right(answer, reference)


@quick
@given(lists, parts, st.integers(0, 4))
def test_a_changed_dropped_or_added_part_is_wrong(items: list[str], other: str, at: int) -> None:
    assume(len({_value(item) for item in [*items, other]}) == len(items) + 1)
    at %= len(items)
    changed, dropped, added = [*items[:at], other, *items[at + 1 :]], items[:at] + items[at + 1 :], [*items, other]
    for write in (as_set, ", ".join, lambda each: "(" + ", ".join(each) + ")"):
        for wrong in (changed, dropped, added):
            assert not right(write(wrong), write(items))


@quick
@given(lists, st.integers(0, 3))
def test_points_have_an_order(items: list[str], at: int) -> None:
    assume(len({_value(item) for item in items}) == len(items))
    at %= len(items) - 1
    swapped = [*items[:at], items[at + 1], items[at], *items[at + 2 :]]
    point = "(" + ",".join(items) + ")"
    assert right(r"\left( " + " , ".join(items) + r" \right)", point)
    assert not right("(" + ",".join(swapped) + ")", point)


@quick
@given(st.integers(-99, 99), st.integers(1, 99), st.sampled_from(["()", "[]", "(]", "[)"]))
def test_intervals_keep_their_brackets(low: int, length: int, brackets: str) -> None:
    interval = f"{brackets[0]}{low},{low + length}{brackets[1]}"
    less = {"(": "<", "[": r"\le", ")": "<", "]": r"\le"}
    assert right(f"{low} {less[brackets[0]]} x {less[brackets[1]]} {low + length}", interval)
    for other in {"()", "[]", "(]", "[)"} - {brackets}:
        assert not right(f"{other[0]}{low},{low + length}{other[1]}", interval)
    assert not right(f"{brackets[0]}{low},{low + length + 1}{brackets[1]}", interval)
    assert not right(f"{brackets[0]}{low - 1},{low + length}{brackets[1]}", interval)


@quick
@given(numbers, st.integers(1, 400))
def test_numbers_have_many_forms(over: int, under: int) -> None:
    value = Fraction(over, under)
    forms = [
        rf"\frac{{{over}}}{{{under}}}",
        f"{over}/{under}",
        rf"\dfrac{{{3 * over}}}{{{3 * under}}}",
        f"x = {over}/{under}",
    ]
    forms.append(rf"{over}\cdot\frac{{1}}{{{under}}}")
    reference = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert all(right(form, reference) for form in forms)
    for wrong in (
        f"{over + 1}/{under}",
        rf"\frac{{{over}}}{{{under + 1}}}" if over else "1",
        f"{-over}/{under}" if over else "1",
    ):
        assert not right(wrong, reference)


@quick
@given(
    st.lists(st.tuples(st.integers(-9, 9).filter(bool), st.integers(0, 5)), min_size=2, max_size=4), st.integers(1, 3)
)
def test_polynomials_are_compared_by_value(terms: list[tuple[int, int]], change: int) -> None:
    def write(each: list[tuple[int, int]]) -> str:
        return "+".join(f"({factor})x^{{{power}}}" for factor, power in each)

    changed = [(terms[0][0] + change, terms[0][1]), *terms[1:]]
    assert right(write(terms[::-1]), write(terms))
    assert right(f"f(x) = {write(terms[::-1])}", f"f(x)={write(terms)}")
    assert not right(write(changed), write(terms))
    assert not right(write([*terms, (1, 6)]), write(terms))
    assert right(f"2y = 2({write(terms)})", f"y = {write(terms)}")
    assert not right(f"y = {write(changed)}", f"y = {write(terms)}")


@quick
@given(numbers, st.sampled_from(["cm", "kg", "apples", "hours", "square units", "people", "dollars", "m/s"]))
def test_units_may_be_left_out_but_not_changed(number: int, unit: str) -> None:
    with_unit = rf"{number}\text{{ {unit}}}"
    assert right(with_unit, str(number))
    assert right(str(number), with_unit)
    assert not right(rf"{number + 1}\text{{ {unit}}}", with_unit)
    if number:
        assert not right(rf"{number}\text{{ liters}}", with_unit) or unit == "square units"


@quick
@given(st.text("0123456789xyzabe+-*/^_(){}[]\\,.=<>| $%!'&", max_size=40), st.text("0123456789x+-/(),", max_size=12))
def test_any_text_is_judged(answer: str, reference: str) -> None:
    judge(answer, reference or "0")
    judge(rf"\boxed{{{answer}}}", reference or "0")


def _value(text: str) -> object:
    found = text.replace(r"\frac{", "").rstrip("}").split("}{")
    return Fraction(int(found[0]), int(found[1])) if len(found) == 2 else text
