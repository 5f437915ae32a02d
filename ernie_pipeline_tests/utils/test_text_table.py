from ernie_pipeline.utils.text_table import aligned, human_size, markdown_table


def test_columns_are_as_wide_as_their_widest_value() -> None:
    assert aligned([("asset", "why"), ("a", ""), ("longer name", "x")]) == "asset        why\na\nlonger name  x"


def test_a_cell_cannot_break_a_markdown_table() -> None:
    table = markdown_table(("a", "b"), [("x|y", "two\nlines"), ("", "1")])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | two lines |", "|  | 1 |"]


def test_sizes_are_told_in_their_largest_unit() -> None:
    assert [human_size(size) for size in (0, 1023, 1024, 3 * 2**29)] == ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]
