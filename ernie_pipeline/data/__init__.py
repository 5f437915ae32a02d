"""From raw rows to training and evaluation tables: pure functions on Polars frames.

source.py (which version) -> read.py (rows, bad rows) -> make_split.py, which composes answers.py, filters.py,
template.py and split.py -> parquet.py (the same bytes for the same table).
"""
