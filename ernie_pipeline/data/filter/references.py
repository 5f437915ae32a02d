r"""Questions that refer to what is not in them: a picture, a table, another question, a page of the web.

A word such as "the graph" alone says little: it can be that of the function given. So each group of phrases comes with
the signs that the text holds what is meant: a picture as code, a table, a list of numbers, the word's introduction
("a figure with 5 corners", "the graph of y = x^2"), what is shaded. Where such a sign stands, the row is kept.
"""

import polars as pl

from ernie_pipeline.data.filter.questions import LOWER
from ernie_pipeline.data.filter.reasons import KEEPS, found
from ernie_pipeline.data.filter.reference_phrases import GROUPS, Group
from ernie_pipeline.data.normalize.masked import apply_where
from ernie_pipeline.recipe.sections import Filters


def reference(filters: Filters) -> pl.Expr:
    r"""What the text refers to is not there: nobody can answer. Pictures as code stay.

    drops: How many triangles are there? See https://example.org/a.png
    drops: ![](a.png) How many triangles are there?
    drops: What is the area of the triangle shown in the figure?
    drops: What is the area of the shape in the diagram below?
    drops: In the figure, AB = 3 and BC = 4. Find AC.
    drops: The table below gives the prices. What is their sum?
    drops: Find $|x| + |y|$ as shown in the figure.
    drops: The table is at www.example.org/a.¶| 1 | 2 |
    drops: Use the graph to find the slope of the line.
    drops: Find the area of the shaded region.
    drops: Refer to the table: what was the mean in May?
    drops: Let $T=TNYWR$. Compute $T+1$.
    drops: (Continue from the previous question) How many are left?
    drops: Using your answer to part (a), find the least such n.
    drops: Which of the following numbers is prime?
    keeps: What is the area of the triangle below? [asy] draw((0,0)--(1,0)); [/asy] As shown in the figure, it is right.
    keeps: She skates a figure of eight. How long is it?
    keeps: How many sides does a plane figure with 5 corners have?
    keeps: At the table on the left sit 5 people. How many legs are there?
    keeps: The graph of f is shifted by 3. What is its new zero?
    keeps: The graph of $y = x^2$ is shifted by 3. What is its new zero?
    keeps: What is the area of the region given by the graph of f and bounded by the graph below the line y = 3?
    keeps: Consider the following graph: its vertices are 1 to 9, its edges join primes. How many edges has it?
    keeps: Let f be the following map: x is sent to x + 3. What is f(4)?
    keeps: There are 15 dogs in the picture that Tom draws, and 3 cats. How many animals are there?
    keeps: The table below gives the prices.¶| a | b |¶| 3 | 4 |¶What is their sum?
    keeps: The table shows the goals: Monday 3, Tuesday 4, Wednesday 0, Thursday 2, Friday 5. How many were it?
    keeps: Between circles of radii 3 and 5 the region is shaded. What is the area of the shaded region?
    keeps: Each problem counts twice as much as the previous problem, the first 1. What do 5 of them count?
    """
    if not filters.reference:
        return KEEPS
    gate = "|".join(group.gate for group in GROUPS)  # few texts pass it
    return apply_where(LOWER, lambda text: text.str.contains(gate), _what_is_absent)


def _what_is_absent(text: pl.Expr) -> pl.Expr:
    return pl.coalesce(_absent(text, group) for group in GROUPS)


def _absent(text: pl.Expr, group: Group) -> pl.Expr:
    """What the text refers to by a phrase of this group; null where it does not, or where it holds what is meant."""

    def work(some: pl.Expr) -> pl.Expr:
        is_there = pl.any_horizontal(pl.lit(False), *(some.str.contains(sign) for sign in group.is_there))
        return found(pl.when(~is_there).then(some), group.phrases, "the question refers to what is not in it ({})")

    return apply_where(text, lambda some: some.str.contains(group.gate), work)
