r"""The filters: each a small named unit that keeps a row, or drops it with a reason.

A filter takes the recipe's section and gives an expression over the columns `line`, `row_id`, `question`,
`expected_answer` and `answer` (bare): the reason for each dropped row, null for each kept one. Those that compare rows
get the rows of `dedup.exact.alike_rows` and its columns too. To add one, write the function and put it in `ROW_FILTERS`
or `GROUP_FILTERS` of filters.py; its name is the function's.

Its docstring holds its examples, and a test runs them all: lines that begin with "drops:" or "keeps:", then
QUESTION => ANSWER. An answer that is left out is 7; "¶" stands for the end of a line, "␉" for a tab, "␌" for a form
feed; after " || " come further rows that stand beside the first, which is the one that is dropped or kept.
"""
